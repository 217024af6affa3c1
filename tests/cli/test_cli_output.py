"""Output of commands, and their errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import pytest
import typer

from sweeper.cli import output
from sweeper.errors import SweeperError, TrialError, UserError
from sweeper.redact import clean

REPOSITORY = Path(__file__).parents[2]


class Stage(Enum):
    READY = "ready"


@dataclass
class Row:
    value: float
    at: datetime
    path: Path


def test_json_is_strict(capsys):
    output.emit_json(
        {"rows": [Row(float("nan"), datetime(2026, 1, 2, tzinfo=UTC), Path("a"))], "stage": Stage.READY, 3: {"x"}}
    )
    assert json.loads(capsys.readouterr().out) == {
        "rows": [{"value": None, "at": "2026-01-02T00:00:00+00:00", "path": "a"}],
        "stage": "ready",
        "3": ["x"],
    }


def test_json_holds_no_control_characters(capsys):
    output.emit_json(["\x1b[2J\u202e\ud800 ä"])
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text) == ["\x1b[2J\u202e\ud800 ä"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\rb\x08\x9bc", "a\ufffdb\ufffd\ufffdc"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("two\nlines\tand tab", "two\nlines\tand tab"),
        ("\ud800", "\ufffd"),
    ],
)
def test_text_from_elsewhere_is_cleaned(text, shown):
    assert clean(text) == shown


def test_markup_in_text_is_taken_literally(capsys):
    output.say(output.safe("[bold]x[/bold] [link=http://a]y[/link] [/] study.yaml:100: \\[z]"))
    assert capsys.readouterr().out == "[bold]x[/bold] [link=http://a]y[/link] [/] study.yaml:100: \\[z]\n"


def test_a_table_is_safe_plain_and_wide_when_piped(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.console().print(output.table(("name", "loss>"), [("[red]a\x1b[2J", 0.5), ("x" * 120, None)]))
    text = capsys.readouterr().out
    assert "[red]a" in text
    assert "\x1b" not in text
    assert "x" * 120 in text


def test_long_lines_are_not_broken_when_piped(capsys):
    output.say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_no_color_is_obeyed(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.say("[red]a[/]")
    assert "\x1b[31m" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    output.say("[red]a[/]")
    assert "\x1b[31m" not in terminal.getvalue()


def test_progress_is_a_line_a_stage_when_piped(capsys):
    with output.progress() as tell:
        for part in range(5):
            tell("downloading [x]", part / 5)
        tell("converting", None)
    assert capsys.readouterr().err == "downloading [x]\nconverting\n"


@pytest.mark.parametrize("error, code", [(UserError("bad [b]x"), 2), (SweeperError("other"), 1), (TrialError("t"), 1)])
def test_an_error_is_a_message_and_its_exit_code(capsys, error, code):
    with pytest.raises(typer.Exit) as left, output.handled():
        raise error
    assert left.value.exit_code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_error_shows_no_secret(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "marker-of-a-secret")
    with pytest.raises(typer.Exit), output.handled():
        raise UserError("postgresql://me:hidden@host/db refused marker-of-a-secret")
    assert capsys.readouterr().err == "error: postgresql://me:[password removed]@host/db refused [HF_TOKEN removed]\n"


def test_an_interrupt_is_130(capsys):
    with pytest.raises(typer.Exit) as left, output.handled():
        raise KeyboardInterrupt
    assert left.value.exit_code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback_in_a_file_without_secrets(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MY_API_KEY", "marker-of-a-secret")
    monkeypatch.delenv(output.DEBUG, raising=False)
    with pytest.raises(typer.Exit) as left, output.handled():
        raise ZeroDivisionError("marker-of-a-secret")
    assert left.value.exit_code == 1
    message = capsys.readouterr().err
    assert "this is a bug in sweeper: ZeroDivisionError" in message
    assert "marker-of-a-secret" not in message
    assert "Traceback" not in message
    (kept,) = tmp_path.iterdir()
    assert str(kept) in message
    assert "Traceback" in kept.read_text()
    assert "marker-of-a-secret" not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_a_bug_shows_its_traceback_when_asked(capsys, monkeypatch):
    monkeypatch.setenv(output.DEBUG, "1")
    with pytest.raises(typer.Exit), output.handled():
        raise ZeroDivisionError("x")
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet():
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    code = (
        "import time; from sweeper.cli import output\n"
        "import typer\n"
        "try:\n"
        "    with output.handled():\n"
        "        while True: output.emit_json(list(range(1000)))\n"
        "except typer.Exit as left: raise SystemExit(left.exit_code)"
    )
    command = f"{sys.executable} -c '{code}' | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "[\n"
    assert done.stderr == ""
    assert done.returncode == 1
