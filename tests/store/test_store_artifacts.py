"""The files of trials in the database: with the result or not at all, on both kinds of database."""

from __future__ import annotations

import pytest

from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import LeaseLost, StudyStateError
from sweeper.store import Artifact, TrialKind

AT = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def begun(database, new_study, spec):
    new_study()
    for number in (0, 1):
        database.trials.start(spec(number), TrialKind.SAMPLED)
    return database


def files(number, *names, sha256="a"):
    return [Artifact(number, f"adapter/{name}", 2**40, sha256 * 64) for name in names]


def result(number, outcome=Outcome.COMPLETE):
    return TrialResult(number=number, outcome=outcome, value=1.0, started_at=AT, finished_at=AT)


def test_they_are_stored_with_the_result_by_trial_and_path(begun):
    begun.trials.finish("itn", result(1), artifacts=files(1, "b", "a"))
    begun.trials.finish("itn", result(0), artifacts=files(0, "c"))
    assert begun.artifacts.all("itn") == (*files(0, "c"), *files(1, "a", "b"))
    assert begun.artifacts.all("itn", 1) == tuple(files(1, "a", "b"))


def test_a_result_that_is_refused_leaves_what_was_stored(begun):
    begun.artifacts.replace("itn", 0, files(0, "a"))
    with pytest.raises(LeaseLost):
        begun.trials.finish("itn", result(0), holder="nobody", artifacts=files(0, "b"))
    assert begun.artifacts.all("itn") == tuple(files(0, "a"))


def test_a_trial_that_goes_on_has_none_until_it_ends_again(begun):
    begun.trials.finish("itn", result(0, Outcome.PAUSED), artifacts=files(0, "a"))
    begun.trials.reopen("itn", 0)
    assert begun.artifacts.all("itn") == ()
    begun.trials.finish("itn", result(0), artifacts=files(0, "a", sha256="b"))
    assert begun.artifacts.all("itn") == tuple(files(0, "a", sha256="b"))


def test_what_is_forgotten_is_forgotten_of_one_trial(begun):
    for number in (0, 1):
        begun.artifacts.replace("itn", number, files(number, "a"))
    begun.artifacts.forget("itn", 0)
    assert begun.artifacts.all("itn") == tuple(files(1, "a"))


def test_an_unknown_study(begun):
    for ask in (begun.artifacts.all, lambda study: begun.artifacts.forget(study, 0)):
        with pytest.raises(StudyStateError, match="did you mean 'itn'"):
            ask("itm")


def test_a_sound_database_says_nothing(begun):
    assert (begun.integrity.faults(), begun.integrity.orphans()) == ((), ())
