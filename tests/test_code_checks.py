"""Style, types and layers, so that the test command is all there is to run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
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


def sources() -> Iterator[tuple[str, ast.Module, int]]:
    """Yield the name, the syntax tree and the number of lines of every file of ours."""
    for folder in ("sweeper", "dashboard", "studies"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if "versions" not in path.parts:  # migrations are history
                text = path.read_text(encoding="utf-8")
                yield str(path.relative_to(REPOSITORY)), ast.parse(text), text.count("\n")


def test_no_file_is_longer_than_400_lines():
    assert not [name for name, _, lines in sources() if lines > 400]


def test_module_docstrings_name_the_thing():
    """No docstring of a module is a question."""
    asks = re.compile(r"(What|How|Whether|Which|Where|Who|Whose|Why|When|Questions)\b|[^\n]*\?$", re.MULTILINE)
    assert not [name for name, tree, _ in sources() if asks.match(ast.get_docstring(tree) or "")]


def test_no_class_name_is_used_three_times():
    names = Counter(node.name for _, tree, _ in sources() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert not [name for name, times in names.items() if times > 2]


def test_no_modules_import_each_other():
    """Not even under ``TYPE_CHECKING``; a cycle is an error that names the modules."""
    graph = grimp.build_graph("sweeper", "sweeper_dashboard", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(graph.modules)


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
