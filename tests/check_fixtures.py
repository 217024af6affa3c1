"""Folders with a tiny model, data and a study, checked through the real command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from check_helpers import STUDY, rows, write_model, write_rows
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def model_source(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _own_machine(tmp_path, monkeypatch):
    """No test touches the user's folders or the Hub, and no GPU is there."""
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tmp_path, model_source):
    """A folder with a model and data, for a study."""
    here = tmp_path / "work"
    here.mkdir()
    shutil.copytree(model_source, here / "tiny")
    write_rows(here / "train.jsonl", rows(400))
    write_rows(here / "validation.jsonl", rows(40, 400))
    write_rows(here / "test.jsonl", rows(40, 440))
    return here


@pytest.fixture
def write_study(folder):
    def write(extra: str = "", text: str = STUDY) -> Path:
        path = folder / "study.yaml"
        path.write_text(text + extra)
        return path

    return write


@pytest.fixture
def sweeper():
    """Run the command line in this process; gives what typer's runner gives."""
    from sweeper.cli.main import app

    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
