"""The frame: help, version, usage, and every command where the table says it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sweeper
from sweeper.cli.main import COMMANDS, app, load

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str, module: str = "sweeper", **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, **settings)


def test_help_names_every_command_and_imports_none_of_them():
    probe = (
        "import sys; from sweeper.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('sweeper.')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
        env={**os.environ, "COLUMNS": "120"},  # each command's help on a line of its own
    )
    for name, lazy in COMMANDS.items():
        assert name in done.stdout
        assert lazy.help.split(",")[0] in done.stdout
    light = ["sweeper.cli", "sweeper.cli.main", "sweeper.cli.output", "sweeper.errors", "sweeper.redact"]
    assert done.stderr.strip() == str(light)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_with_complete_help(name):
    command = load(name)
    assert command.name == name
    assert command.help.startswith(COMMANDS[name].help.rstrip("."))
    for each in getattr(command, "commands", {"": command}).values():
        assert each.help
        for parameter in each.params:
            assert parameter.name == "help" or parameter.help, (name, parameter.name)
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output


def test_help_follows_a_study_s_life_plain_when_piped_and_in_panels_on_a_terminal(monkeypatch):
    panels = list(dict.fromkeys(lazy.panel for lazy in COMMANDS.values()))
    piped = run("--help").stdout
    headings = [line.rstrip(":") for line in piped.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options", *panels]
    assert "\u256d" not in piped and "\x1b" not in piped
    assert piped.index("Resume a stopped study.") < piped.index(panels[1]) < piped.index("Pause a running study")
    screen, ours = os.openpty()
    with os.fdopen(screen, "rb", buffering=0) as reader:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen([sys.executable, "-m", "sweeper", "--help"], stdout=ours, env=environment)
        os.close(ours)
        shown = b""
        try:
            while part := reader.read(4096):
                shown += part
        except OSError:
            pass  # the terminal is gone with the process
        assert process.wait(30) == 0
    text = shown.decode()
    assert "\u256d" in text and all(f" {panel} " in text for panel in panels)


def test_version():
    assert run("--version").stdout == f"sweeper {sweeper.__version__}\n"


def test_a_misspelt_command_gets_the_nearest():
    done = run("chek")
    assert done.returncode == 2
    assert "Did you mean 'check'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_module_of_the_entry_point_runs_too():
    done = run("--version", module="sweeper.cli.main")
    assert done.stdout == f"sweeper {sweeper.__version__}\n"


def test_a_terminal_without_unicode(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    missing = tmp_path / "größe-\U0001f600.yaml"
    for arguments in (["--help"], ["check", str(missing)]):
        done = run(*arguments, env=environment)
        assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
        assert "Traceback" not in done.stderr
        assert "bug" not in done.stderr


def test_ctrl_c_while_a_command_waits(tmp_path):
    """Interrupted while it waits for data, which never come."""
    os.mkfifo(tmp_path / "never")
    code = (
        "import sweeper.cli.check as module, pathlib, sys\n"
        "module.load_study = lambda file: (print('ready', flush=True), open(file).read())\n"
        "sys.argv = ['sweeper', 'check', sys.argv[1]]\n"
        "from sweeper.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "never")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
