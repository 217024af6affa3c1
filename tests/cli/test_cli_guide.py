"""``sweeper guide``: the guides that ship, in the terminal."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sweeper.cli import guide, output
from sweeper.cli.main import app


def call(*arguments: str):
    return CliRunner().invoke(app, ["guide", *arguments], env={"COLUMNS": "200"})


def test_topics_are_listed_with_a_line_each():
    listed = call()
    assert listed.exit_code == 0
    topics = json.loads(call("--json").stdout)
    assert topics.keys() == guide.GUIDES.keys()
    for topic, summary in topics.items():
        assert summary.endswith(".") and len(summary) < 130 and "\n" not in summary
        assert topic in listed.stdout and summary in listed.stdout


@pytest.mark.parametrize("topic", guide.GUIDES)
def test_a_guide_is_plain_markdown_when_piped(topic):
    shown = call(topic)
    assert shown.exit_code == 0
    assert shown.stdout.startswith("# ") and "<!--" not in shown.stdout
    assert json.loads(call(topic, "--json").stdout)["text"] == shown.stdout


@pytest.mark.parametrize("topic", guide.GUIDES)
def test_a_guide_is_laid_out_on_a_terminal(topic, monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(guide, "console", lambda: Console(force_terminal=True, width=100))
    guide.guide(topic)
    shown = capsys.readouterr().out
    title = guide.read(topic).splitlines()[0].removeprefix("# ")
    assert title in shown and f"# {title}" not in shown
    assert "\x1b[" in shown and "```" not in shown and "<picture>" not in shown


def test_an_unknown_topic_names_the_nearest():
    refused = call("serch")
    assert refused.exit_code == 2
    assert "no guide 'serch'; did you mean 'search'?" in refused.stderr
    assert "did you mean" not in call("zzz").stderr and "figures" in call("zzz").stderr


def test_a_guide_needs_no_torch():
    assert output.console is guide.console
    import subprocess
    import sys

    code = "import sys, sweeper.cli.guide; print('torch' in sys.modules, 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
