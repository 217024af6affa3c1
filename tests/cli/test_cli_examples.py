"""``sweeper init --example``: the shipped studies, copied to where they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeper.cli import examples
from sweeper.cli.main import app
from sweeper.config.loader import PipelineFile, load_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def init(*arguments: object):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_study_comes_with_its_data(here):
    result = init("--example")
    assert result.exit_code == 0, result.output
    assert "sweeper run studies/quickstart.yaml" in result.stdout
    assert contents(here / "studies") == {
        name: content for name, content in contents(STUDIES).items() if "/." not in name and "__pycache__" not in name
    }
    for file in (here / "studies").glob("*.yaml"):
        study = load_study(file)
        for part in study.stages.values() if isinstance(study, PipelineFile) else (study,):
            data = part.config.data
            for source in (*data.train, *(data.validation or ()), *(data.test or ())):
                assert (file.parent / source).is_file(), (file, source)


def test_by_products_stay_behind(here, monkeypatch):
    shipped = here / "shipped"
    (shipped / "data" / "__pycache__").mkdir(parents=True)
    (shipped / ".cache").mkdir()
    for name in ("one.yaml", "data/make.py", "data/__pycache__/make.pyc", ".cache/x", ".hidden"):
        (shipped / name).write_text(name)
    monkeypatch.setattr(examples, "shipped_folder", lambda package: shipped)
    assert init("--example", "to").exit_code == 0
    assert sorted(contents(here / "to")) == ["data/make.py", "one.yaml"]


def test_again_it_adds_what_is_missing_and_keeps_the_rest(here):
    assert init("--example", "deep/er").exit_code == 0
    folder = here / "deep" / "er"
    whole = contents(folder)
    (folder / "quickstart.yaml").unlink()
    (folder / "mine.yaml").write_text("mine")
    result = init("--example", "deep/er")
    assert result.exit_code == 0, result.output
    assert contents(folder) == {**whole, "mine.yaml": b"mine"}


def test_nothing_is_written_over_a_changed_file(here):
    (here / "studies").mkdir()
    (here / "studies" / "quickstart.yaml").write_text("precious")
    result = init("--example")
    assert result.exit_code == 2
    assert "studies/quickstart.yaml would be overwritten" in result.stderr
    assert contents(here) == {"studies/quickstart.yaml": b"precious"}


def test_nothing_is_written_through_a_link(here):
    (here / "studies").mkdir()
    (here / "studies" / "quickstart.yaml").symlink_to(here / "elsewhere.yaml")
    result = init("--example")
    assert result.exit_code == 2
    assert "would be overwritten" in result.stderr
    assert contents(here) == {}


def test_a_folder_that_cannot_be_one(here):
    (here / "file").write_text("precious")
    result = init("--example", "file")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert contents(here) == {"file": b"precious"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--example", "--data", "d.jsonl", "--force"), "not --data, --force"),
        (("mydata.jsonl",), "pass your data with --data"),
    ],
)
def test_flags_that_do_not_go_together(here, arguments, words):
    result = init(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert contents(here) == {}
