"""A study put together: what ``run`` and ``check`` both stand on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.check import Section
from sweeper.check.duration import probe_flops, trial_flops
from sweeper.check.length import Tokens, corners
from sweeper.check.report import check_study
from sweeper.config.loader import load_study
from sweeper.config.space import Choice, Fixed
from sweeper.errors import DataError, ModelNotFoundError
from sweeper.study.resolve import resolve_study


@pytest.fixture
def study(write_study):
    return lambda extra="": load_study(write_study(extra))


def test_everything_is_found(study, folder):
    found = resolve_study(study())
    assert found.device == "cpu"
    (model,) = found.models.values()
    assert model.found.path == folder / "tiny"
    assert model.facts is not None and model.facts.hidden_size == 32
    assert len(found.splits.train) == 400
    assert found.space.preset == "lora"
    assert found.space.space["lora_rank"].corners() == (8, 32)  # 64 and 128 are above what the model allows


def test_settings_given_on_the_command_line_count(study):
    file = study()
    config = file.config.model_copy(update={"seed": 7})
    assert resolve_study(replace(file, config=config)).config.seed == 7


def test_data_faults_come_before_anything_is_fetched(study, folder, monkeypatch):
    (folder / "train.jsonl").unlink()
    file = study()
    config = file.config.model_copy(update={"model": file.config.model.model_copy(update={"name": "no/where"})})
    with pytest.raises(DataError):
        resolve_study(replace(file, config=config), fetch=True)
    with pytest.raises(ModelNotFoundError):
        (folder / "train.jsonl").write_text((folder / "test.jsonl").read_text())
        resolve_study(replace(file, config=config), fetch=True)


def test_steps_and_warmup_at_every_corner():
    space = {"batch_size": Choice(choice=(8, 32)), "epochs": Choice(choice=(1, 2)), "warmup_ratio": Fixed(value=0.1)}
    found = [(c.batch_size, c.epochs, c.steps, c.warmup_steps) for c in corners(space, 100)]
    assert found == [(8, 1, 13, (2, 2)), (32, 1, 4, (1, 1)), (8, 2, 26, (3, 3)), (32, 2, 8, (1, 1))]


def test_operations_of_a_trial(study):
    found = resolve_study(study("search:\n  space: {epochs: 2}\nevaluation: {points: 4}\n"))
    tokens = Tokens(mean=10.0, longest=12, section=Section("tokens", ()))
    (model,) = found.models.values()
    assert model.facts is not None
    # 400 rows of 10 tokens twice at 4 operations a weight, and 40 rows 4 times at 2.
    assert trial_flops(found, model.facts, tokens) == model.facts.parameters * (400 * 10 * 2 * 4 + 40 * 10 * 4 * 2)


def test_the_probe_finds_a_plausible_speed():
    assert 1e8 < probe_flops() < 1e13


def test_a_timeout_bounds_the_estimate_and_no_pruning_lengthens_it(study):
    def search_s(extra: str) -> float:
        return float(check_study(study(extra)).figures["duration"]["search_s"])

    assert search_s("search: {timeout: 1s}\n") == 1
    figures = check_study(study("search: {pruner: none, n_trials: 10}\n")).figures["duration"]
    assert figures["search_s"] == pytest.approx(15 + 10 * figures["trial_s"])


def test_a_report_is_plain_data(study):
    report = check_study(study())
    assert report.study == "letters"
    assert report.warnings == ("test has 40 rows: differences below about 22 points of 100 may stay undecided",)
    assert [section.title for section in report.sections] == [
        "model",
        "data",
        "space",
        "steps",
        "tokens",
        "memory",
        "duration",
    ]
