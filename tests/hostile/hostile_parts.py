"""What the tests of hostile input share: the command line, what a refusal must look like, and what a folder holds."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from sweeper.cli.main import app

sys.path.append(str(Path(__file__).parents[1] / "dashboard"))  # its homes and its browser serve here too


def sweeper(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, *words: str) -> str:
    """Return the message of a refusal, which is one, names the fault, and comes with exit code 2 and nothing else."""
    said = result.stderr
    assert result.exit_code == 2, (result.exit_code, said, result.stdout)
    assert result.stdout == ""
    assert said.startswith("error: ") and said.count("error: ") == 1, said
    assert "Traceback" not in said and "bug in sweeper" not in said, said
    for word in words:
        assert word in said, (word, said)
    return said


def content(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, but for locks, which hold nothing."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("lock")
    }
