"""Style, types and layers, so that the test command is all there is to run."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
RUN = REPOSITORY / ".ci" / "run"
SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-m", "ruff", "check", "."], id="style"),
        pytest.param([sys.executable, "-m", "ruff", "format", "--check", "."], id="format"),
        pytest.param([sys.executable, "-m", "mypy"], id="types"),
        pytest.param([SCRIPTS / "lint-imports"], id="layers"),
    ],
)
def test_the_code_passes(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def ci(folder: Path, readme: str) -> subprocess.CompletedProcess[str]:
    """Run ``.ci/run`` in a project with another README."""
    (folder / ".ci").mkdir()
    (folder / ".ci" / "run").write_bytes(RUN.read_bytes())
    (folder / "README.md").write_text(readme)
    return subprocess.run(["bash", folder / ".ci" / "run"], capture_output=True, text=True, cwd="/", timeout=60)


def test_ci_runs_the_block_that_the_readme_marks(tmp_path):
    other, wanted = "```bash\ntouch no\n```\n", "```bash\ntouch first && pwd\ntouch second\n```\n"
    readme = f"{other}\n<!-- test -->\n\n{wanted}{other}"
    done = ci(tmp_path, readme)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".ci", "README.md", "first", "second"}


@pytest.mark.parametrize("block", ["false && touch after", "false\ntouch after", "false | cat\ntouch after"])
def test_ci_fails_where_the_command_does(tmp_path, block):
    assert ci(tmp_path, f"<!-- test -->\n```\n{block}\n```\n").returncode == 1
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize("readme", ["", "```\ntouch no\n```\n", "<!-- test -->\n", "<!-- test -->\n```\n```\n"])
def test_ci_fails_without_a_marked_block(tmp_path, readme):
    done = ci(tmp_path, readme)
    assert done.returncode == 1
    assert "<!-- test -->" in done.stderr


def test_the_readme_marks_the_test_command():
    """What ``.ci/run`` runs, looked at and not run: these tests are part of it."""
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert lines.count("<!-- test -->") == 1
    following = [line for line in lines[lines.index("<!-- test -->") + 1 :] if line]
    assert following[0].startswith("```")
    assert re.search(r"\bpytest( -n 2 --dist worksteal)?$", following[1])
    assert RUN.stat().st_mode & 0o111
