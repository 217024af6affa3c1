"""The documents: every link leads somewhere, every command that they name exists, and the runnable ones run."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from shrunk import shrunk
from typer.main import get_command
from typer.testing import CliRunner

from sweeper.cli.main import app, load
from sweeper.config.adapter import Adapter
from sweeper.config.backend import Backend
from sweeper.config.evaluation import TASK_METRICS
from sweeper.config.executor import Executor
from sweeper.config.loader import load_study
from sweeper.config.rewards import Reward
from sweeper.config.search import Pruner, Sampler
from sweeper.config.technique import Technique
from sweeper.export import FORMATS

REPOSITORY = Path(__file__).parents[1]
ROOTS = (".", "sweeper", "sweeper/training", "sweeper/executors", "dashboard", "tests")
"""Folders that the paths of documents start at, beside the document's own."""
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
)
DOCUMENTS = [REPOSITORY / name for name in LISTED.stdout.split() if (REPOSITORY / name).is_file()]
LIMITS = {"README.md": 12_288, "CONTRIBUTING.md": 7_168}
EACH = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
FENCE = re.compile(r"^(?P<mark><!-- runnable -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """Return a document without its code blocks."""
    return FENCE.sub("", text)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures."""
    return [
        *re.findall(r"\]\(([^)\s]+)\)", prose(text)),
        *re.findall(r'(?:src|srcset|href)="([^"]+)"', prose(text)),
    ]


@EACH
def test_every_link_leads_somewhere(path):
    for link in links(path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(REPOSITORY) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


@EACH
def test_every_file_that_is_named_exists(path):
    for name in re.findall(r"`([\w./*-]+(?:/|\.py|\.yaml|\.md))`", prose(path.read_text(encoding="utf-8"))):
        places = [path.parent, *(REPOSITORY / root for root in ROOTS)]
        outside = name in ("trl.yaml", ".sweeper/", "workers/") or name.startswith(("~", "my"))
        assert outside or any((place / name).exists() for place in places), name


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_a_document_stays_short(name, limit):
    assert (REPOSITORY / name).stat().st_size <= limit


def commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of every ``sweeper`` command, and whether it is a whole command of a code block."""
    for fence in FENCE.finditer(text):
        if fence["language"] == "bash":
            for line in fence["code"].splitlines():
                for part in re.split(r"&&|\|\|", line):
                    words = shlex.split(part, comments=True)
                    if words and Path(words[0]).name == "sweeper":
                        yield words[1:], True
    for inline in re.findall(r"`((?:\w+=\S+ )?sweeper [^`]+)`", prose(text)):
        words = shlex.split(inline)
        yield words[words.index("sweeper") + 1 :], False


@EACH
def test_every_command_and_option_exists(path):
    for words, whole in commands(path.read_text(encoding="utf-8")):
        shown = f"sweeper {' '.join(words)}"
        if words[0].startswith("-"):
            assert words[0] in options(get_command(app)), shown
            continue
        command, rest = load(words[0]), words[1:]
        if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, shown
            command, rest = command.commands[rest[0]], rest[1:]
        unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options(command)]
        assert not unknown, shown
        if whole and not any(word.isupper() for word in rest):
            command.make_context(words[0], rest)  # parses, and runs nothing


def options(command) -> set[str]:
    return {"--help", "-h", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}


RUNNABLE = [
    pytest.param(path, fence["language"], fence["code"], id=f"{path.relative_to(REPOSITORY)}-{place}")
    for path in DOCUMENTS
    for place, fence in enumerate(FENCE.finditer(path.read_text(encoding="utf-8")))
    if fence["mark"]
]


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model):
    """A home in which the quickstart was run on the tiny model, small, and its winner registered."""
    folder = tmp_path_factory.mktemp("guides")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SWEEPER_HOME", str(folder / "home"))
        assert CliRunner().invoke(app, ["init", "--example"]).exit_code == 0
        config = shrunk(folder / "studies" / "quickstart.yaml", (tiny_model,)).config
        text = yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True))
        (folder / "studies" / "quickstart.yaml").write_text(text)
        load_study(folder / "studies" / "quickstart.yaml")
        done = CliRunner().invoke(app, ["run", "studies/quickstart.yaml", "--force"])
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize(("path", "language", "code"), RUNNABLE)
def test_what_is_marked_as_runnable_runs(home, monkeypatch, path, language, code):
    monkeypatch.chdir(home)
    monkeypatch.setenv("SWEEPER_HOME", str(home / "home"))
    if language == "python":
        monkeypatch.setenv("SWEEPER_HOME", str(home / "another-home"))
        monkeypatch.chdir(home / "studies")
        (home / "studies" / "study.yaml").write_bytes((home / "studies" / "quickstart.yaml").read_bytes())
        exec(compile(code, str(path), "exec"), {})
        return
    ran = [words for words, _ in commands(f"```{language}\n{code}```")]
    assert ran, code
    for words in ran:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"sweeper {' '.join(words)}\n{done.output}"


def kinds(union: object) -> Iterator[str]:
    """Yield the ``kind`` of every model of a tagged union."""
    if hasattr(union, "model_fields"):
        yield from get_args(union.model_fields["kind"].annotation)
    for part in get_args(union):
        yield from kinds(part)


@pytest.mark.parametrize(
    ("guide", "names"),
    [
        ("sweeper/evaluation", TASK_METRICS),
        ("sweeper/search", [*kinds(Sampler), *kinds(Pruner)]),
        ("sweeper/executors", list(kinds(Executor))),
        ("sweeper/export", list(FORMATS)),
        ("studies", [*kinds(Technique), *kinds(Adapter), *kinds(Backend), *kinds(Reward)]),
    ],
)
def test_a_guide_names_every_kind(guide, names):
    text = (REPOSITORY / guide / "README.md").read_text(encoding="utf-8")
    assert len(names) > 3
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_contributing_lists_what_there_is():
    """Every module and folder of the package, and the layers as import-linter has them."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^  (\w+(?:\.py|/))  ", text, re.MULTILINE))
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (REPOSITORY / "sweeper").iterdir()}
    assert listed == {name for name in there if re.fullmatch(r"[a-z]\w*(\.py|/)", name)}
    layers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    assert re.sub(r"\s+", " ", " -> ".join(layers).replace("sweeper.", "")) in re.sub(r"\s+", " ", text)
