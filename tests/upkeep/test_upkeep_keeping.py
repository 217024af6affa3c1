"""The keep policy: what goes, and above all what stays."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from sweeper.config.storage import KeepConfig, size_bytes, size_text
from sweeper.config.trial import Outcome
from sweeper.executors.lifecycle.retention import collect
from sweeper.store import OrderKind
from sweeper.study.orders import give


def keep(study, *, ended=False):
    return collect(study.database, study.paths, study.search, study.config, ended=ended)


@pytest.mark.parametrize(
    ("text", "size"), [("5GiB", 5 * 2**30), ("1.5 MB", 1_500_000), ("100B", 100), ("2 kib", 2048), ("1TB", 10**12)]
)
def test_sizes(text, size):
    assert size_bytes(text) == size
    assert KeepConfig(quota=text).quota == size


@pytest.mark.parametrize("quota", ["five", "5", "5 G", "-1GB", 0, ""])
def test_what_is_no_size_is_refused(quota):
    with pytest.raises(ValidationError):
        KeepConfig(quota=quota)


@pytest.mark.parametrize("best", [0, -1, "some"])
def test_what_is_no_number_of_adapters_is_refused(best):
    with pytest.raises(ValidationError):
        KeepConfig(best=best)


def test_sizes_are_said_as_people_read_them():
    assert [size_text(size) for size in (0, 1023, 1536, 5 * 2**30)] == ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB"]


def test_the_best_three_stay_by_default(begun):
    study = begun()
    for value in (5.0, 1.0, 4.0, 2.0, 3.0):
        study.end(value)
        keep(study)
    assert study.adapters() == [1, 3, 4]
    assert {each.number for each in study.database.artifacts.all("kept")} == {1, 3, 4}


def test_what_is_removed_is_gone_whole_and_told(begun):
    study = begun(keep={"best": 1}, evaluation={"metrics": ["exact_match"], "candidates": 1})
    study.end(1.0)
    study.end(2.0)
    collected = keep(study, ended=True)
    assert [each.number for each in collected.removed] == [1]
    assert "1 adapter(s) removed by the keep policy" in str(collected)
    assert sorted(path.name for path in study.paths.trial(1).folder.iterdir()) == ["result.json", "spec.json"]
    assert keep(study, ended=True).removed == ()


def test_never_fewer_than_are_scored(begun):
    study = begun(keep={"best": 1}, evaluation={"metrics": ["exact_match"], "candidates": 3})
    for value in (5.0, 1.0, 4.0, 2.0, 3.0):
        study.end(value)
    keep(study, ended=True)
    assert study.adapters() == [1, 3, 4]


def test_all_stay_where_that_is_asked(begun):
    study = begun(keep={"best": "all"})
    for value in (5.0, 1.0, 4.0, 2.0, 3.0):
        study.end(value)
    keep(study, ended=True)
    assert study.adapters() == [0, 1, 2, 3, 4]


def test_registered_ones_stay_however_weak(begun):
    study = begun()
    for value in (9.0, 1.0, 2.0, 3.0, 4.0):
        number = study.end(value)
        if number == 0:
            study.register(0)
    keep(study, ended=True)
    assert study.adapters() == [0, 1, 2, 3]


def test_where_another_trial_begins_stays(begun):
    """One that waits, one that is ordered, and one that a kept trial began from."""
    study = begun()
    for value in (9.0, 8.0, 1.0, 2.0, 3.0, 7.0):
        study.end(value)
    values = {"learning_rate": 5e-3}
    study.search.order(1, values, clones=0, initial=0)
    give(
        study.home,
        study.database,
        "kept",
        OrderKind.CLONE,
        actor="ann",
        number=1,
        data={"changes": values, "from_weights": True},
    )
    keep(study)
    assert study.adapters() == [0, 1, 2, 3, 4]
    study.end(0.5)  # the clone of 0, which is the best now
    keep(study)
    assert study.adapters() == [0, 1, 2, 3, 6]


def test_what_people_ordered_stays_for_it_is_scored(begun):
    study = begun()
    study.search.order(1, {"learning_rate": 5e-3})
    assert study.end(9.0) == 0
    for value in (1.0, 2.0, 3.0, 4.0):
        study.end(value)
    keep(study)
    assert study.adapters() == [0, 1, 2, 3]


def test_the_whole_front_stays(begun):
    evaluation = {"metrics": ["exact_match"], "candidates": 1, "objectives": ["training_time"]}
    study = begun(evaluation=evaluation, keep={"best": 1})
    for value, seconds in ((1.0, 9.0), (2.0, 5.0), (3.0, 1.0), (3.0, 9.0), (4.0, 4.0)):
        number = study.start()
        result = study.leave(number, value=value).model_copy(update={"train_seconds": seconds})
        study.record(result)
        study.search.tell(number, result)
    keep(study, ended=True)
    assert study.adapters() == [0, 1, 2]


def test_files_from_before_are_left_alone(begun):
    study = begun()
    for value in (5.0, 1.0, 4.0, 2.0, 3.0):
        study.end(value)
    study.database.artifacts.forget("kept", 0)
    keep(study, ended=True)
    assert study.adapters() == [0, 1, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_the_final_scoring_finds_what_it_would_without_a_policy(begun, seed):
    """Whatever confirmations turn the order into: the adapters of the chosen trials were never collected before."""
    luck = random.Random(seed)
    search = {"n_trials": 16, "sampler": "random", "pruner": "none", "known_good": False, "confirm": 0.4}
    study = begun(search={**search, "confirm_top": 2}, keep={"best": 1})
    while (candidate := study.search.ask()) is not None:
        diverged = candidate.confirms is not None and luck.random() < 0.5
        number = study.start(candidate)
        result = study.leave(number, Outcome.DIVERGED if diverged else Outcome.COMPLETE, luck.random())
        study.record(result)
        study.search.tell(number, result)
        keep(study)
    chosen = [found.best_number("minimize") for found in study.search.best(study.config.evaluation.candidates)]
    assert set(chosen) <= set(study.adapters())
    assert len(study.adapters()) < 12
    keep(study, ended=True)
    assert study.adapters() == sorted(chosen)


def sized(study, values, size):
    for value in values:
        study.end(value, size=size)


def test_a_quota_takes_the_worst_first(begun):
    study = begun(keep={"best": "all", "quota": "20KB"})
    sized(study, (5.0, 1.0, 4.0, 2.0, 3.0), 1_000)  # a good 4 KB each
    collected = keep(study, ended=True)
    assert [each.number for each in collected.removed] == [0]
    assert "over the quota" in collected.removed[0].why
    assert study.adapters() == [1, 2, 3, 4]
    assert collected.over_quota is None


def test_stopped_trials_count_against_the_quota(begun):
    study = begun(keep={"best": "all", "quota": "20KB"})
    sized(study, (1.0, 2.0, 3.0, 4.0), 1_000)
    number = study.start()
    result = study.leave(number, Outcome.INTERRUPTED, size=2_000)
    study.record(result)
    keep(study, ended=True)
    assert study.adapters() == [0, 1]


def test_what_the_scoring_needs_stays_above_the_quota_and_that_is_said(begun):
    study = begun(keep={"quota": "5KB"})
    sized(study, (5.0, 1.0, 4.0), 1_000)
    collected = keep(study, ended=True)
    assert study.adapters() == [1, 2]
    assert "above its quota of 4.9 KiB" in collected.over_quota and "goes on" in collected.over_quota
