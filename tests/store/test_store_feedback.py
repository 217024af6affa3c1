from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sweeper.errors import DataError
from sweeper.store import Database, Feedback
from sweeper.store.feedback import FeedbackCounts

AT = datetime(2026, 1, 2, tzinfo=UTC)


def given(**changes: Any) -> Feedback:
    values: dict[str, Any] = {
        "at": AT,
        "actor": "ann",
        "adapter": "itn",
        "version": 1,
        "base_model": "smollm2-135m",
        "prompt": "write one",
        "answer": "2",
        "good": False,
        "correction": "1",
        "settings": {"temperature": 0.0},
    }
    return Feedback(**(values | changes))


def test_feedback_is_read_back_the_latest_first(database: Database) -> None:
    first, second, base = given(), given(version=2, good=True, correction=None), given(adapter=None, version=None)
    for each in (first, second, base):
        database.feedback.add(each)
    assert database.feedback.all() == (base, second, first)
    assert database.feedback.all(adapter="itn") == (second, first)
    assert database.feedback.all(adapter="itn", version=1) == (first,)
    assert database.feedback.all(limit=1) == (base,)


def test_giving_it_is_an_action(database: Database) -> None:
    database.feedback.add(given())
    (action,) = database.actions.all(adapter="itn")
    assert (action.actor, action.kind, action.version, action.at) == ("ann", "feedback", 1, AT)
    assert action.message == "thumb down and correction for an answer of itn v1"


def test_counts_are_of_every_version(database: Database) -> None:
    for each in (given(), given(good=True, correction=None), given(good=None), given(version=2, good=True)):
        database.feedback.add(each)
    database.feedback.add(given(adapter=None, version=None, correction=None))
    assert database.feedback.counts() == {
        ("itn", 1): FeedbackCounts(1, 1, 2),
        ("itn", 2): FeedbackCounts(1, 0, 1),
        (None, None): FeedbackCounts(0, 1, 0),
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"good": None, "correction": None}, "neither"), ({"answer": "x" * 20_001}, "the answer has more than 20,000")],
)
def test_what_cannot_be_kept_is_refused_whole(database: Database, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        database.feedback.add(given(**changes))
    assert database.feedback.all() == () and database.actions.all() == ()
