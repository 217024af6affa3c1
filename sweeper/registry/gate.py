"""The gate to production: a version must be significantly better than the one it replaces, on the same examples.

If production is empty, the last version that was there still has to be beaten: archiving it is no way around the gate.

The scores in the database are compared, so judging needs no weights. If the version to be replaced was never scored on
the candidate's test examples, ``sweeper.registry.rescoring`` does that first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from sweeper.config.evaluation import LOSSES, EvaluationConfig, direction
from sweeper.errors import DataError
from sweeper.evaluation.comparison import FEWEST_EXAMPLES, Difference, stored_difference
from sweeper.registry.version import AdapterVersion
from sweeper.store import Database, Example

GateState = Literal["passed", "not better", "too few", "not scored"]

TEST = "test"
_LONGEST_SPLIT = 100


@dataclass(frozen=True)
class GateResult:
    """The gate's result for a candidate.

    Attributes:
        candidate: The version that is to go to production, in words, as is ``against``, its opponent.
        opponent: The number of the opposing version; None for the candidate's own base model.
        metric: The deciding test metric of the candidate's study.
        margin: How far above zero the whole interval of the gain must lie.
        examples: How many pairs were compared.
        gain: How much better the candidate is, in the metric's units; more is better for a loss, too.
        low: Lower end of the gain's 95 % interval.
        high: Its upper end.
        state: The conclusion.
        obstacle: Why the two could not be compared; empty if they were.
    """

    candidate: str
    against: str
    opponent: int | None
    metric: str
    margin: float
    examples: int = 0
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    state: GateState = "not scored"
    obstacle: str = ""

    @property
    def passed(self) -> bool:
        """Whether it may go to production."""
        return self.state == "passed"

    @property
    def unscored(self) -> bool:
        """Whether one of the two must be scored first."""
        return self.state == "not scored"

    def __str__(self) -> str:
        if self.gain is None or self.low is None or self.high is None:
            return f"{self.candidate} cannot be compared with {self.against} on {self.metric}: {self.obstacle}"
        sense = " (smaller is better)" if direction(self.metric) == "minimize" else ""
        found = (
            f"{self.candidate} against {self.against}, {self.metric}{sense} on {self.examples} test examples: "
            f"gain {self.gain:+.4g}, 95 % interval {self.low:+.4g} to {self.high:+.4g}, margin {self.margin:g}"
        )
        if self.state == "too few":
            return f"{found}; fewer than {FEWEST_EXAMPLES} examples are too few to decide"
        return f"{found}; the whole interval {'lies' if self.passed else 'must lie'} above the margin"


def judge(
    database: Database, candidate: AdapterVersion, opponent: AdapterVersion | None, *, was_last: bool = False
) -> GateResult:
    """Compare the stored scores of a candidate with those of an opponent, by default its own base model.

    ``was_last`` tells that the opponent is no longer in production, but was the last there; see ``Registry.opponent``.

    Raises:
        StudyStateError: If the database no longer has a study of theirs.
    """
    metric, margin = deciding(database, candidate)
    against = f"the base model of {candidate}" if opponent is None else str(opponent)
    if opponent is not None and was_last:
        against += f" (the last in production, now {opponent.stage})"
    number = None if opponent is None else opponent.version
    own = own_examples(database, candidate)
    obstacles = [] if own else [f"{candidate} was not scored on the test split of its study"]
    for others in _opponents(database, candidate, opponent) if own else ():
        try:
            difference = _difference(own, others, metric)
        except DataError as error:
            obstacles.append(str(error))
            continue
        return _judged(GateResult(str(candidate), against, number, metric, margin, len(own)), difference)
    missing = f"{against} was not scored on the test examples of study {candidate.lineage.study}"
    return GateResult(str(candidate), against, number, metric, margin, obstacle="; ".join(obstacles) or missing)


def differences(database: Database, one: AdapterVersion, other: AdapterVersion | None) -> dict[str, Difference]:
    """Return the paired differences of two versions, first minus second, on the first's test examples, by metric.

    They are those of the metrics that both were scored with; ``other`` is by default the first's base model.
    """
    own = own_examples(database, one)
    found: dict[str, Difference] = {}
    for others in _opponents(database, one, other) if own else ():
        for metric in own[0].scores:
            if metric not in found:
                with suppress(DataError):  # one that the other was not scored with
                    found[metric] = _difference(own, others, metric)
    return found


def deciding(database: Database, candidate: AdapterVersion) -> tuple[str, float]:
    """Return the deciding test metric of a version's study, and its margin.

    The stored configuration may be from an earlier version of sweeper, so only these two are read from it.
    """
    evaluation: dict[str, Any] = database.studies.get(candidate.lineage.study).config.get("evaluation", {})
    defaults = EvaluationConfig()
    metrics = evaluation.get("metrics") or defaults.metrics
    return str(metrics[0]), float(evaluation.get("promotion_margin", defaults.promotion_margin))


def own_examples(database: Database, version: AdapterVersion) -> tuple[Example, ...]:
    """Return the test examples that a version was scored on in its own study."""
    return database.evaluations.examples(version.lineage.study, version.lineage.trial, TEST)


def split_of(study: str) -> str:
    """Return the split name under which a version of another study is scored on the test split of ``study``."""
    name = f"{TEST} of {study}"
    if len(name) <= _LONGEST_SPLIT:
        return name
    return f"{name[:80]} {hashlib.sha256(study.encode()).hexdigest()[:16]}"


def base_examples(database: Database, version: AdapterVersion) -> tuple[Example, ...]:
    """Return the test examples that the bare base model of a version was scored on."""
    study = version.lineage.study
    labels = {(found.number, found.split): found.base for found in database.evaluations.all(study)}
    return database.evaluations.examples(study, None, TEST, labels.get((version.lineage.trial, TEST), ""))


def _opponents(
    database: Database, candidate: AdapterVersion, opponent: AdapterVersion | None
) -> Iterator[tuple[Example, ...]]:
    """Yield the stored examples of the opponent that may match the candidate's, the surest first."""
    if opponent is None:
        found = [base_examples(database, candidate)]
    else:
        study, trial = opponent.lineage.study, opponent.lineage.trial
        foreign = database.evaluations.examples(study, trial, split_of(candidate.lineage.study))
        own = own_examples(database, opponent) if _scored_alike(database, candidate, opponent) else ()
        found = [foreign, own]
    yield from (examples for examples in found if examples)


def _scored_alike(database: Database, one: AdapterVersion, other: AdapterVersion) -> bool:
    """Return whether two studies score the same examples alike: same technique, same length limit of answers."""
    if one.lineage.study == other.lineage.study:
        return True
    configs = [database.studies.get(version.lineage.study).config for version in (one, other)]
    asked = [(of.get("technique"), of.get("evaluation", {}).get("max_new_tokens")) for of in configs]
    return bool(asked[0] == asked[1])


def _difference(candidate: Sequence[Example], other: Sequence[Example], metric: str) -> Difference:
    difference = stored_difference(candidate, other, metric)
    if metric in LOSSES and _tokens(candidate, metric) != _tokens(other, metric):
        raise DataError(
            f"{metric} is a loss per token, and the two base models cut the same answers into different tokens; "
            "let a metric on the answers come first in evaluation.metrics"
        )
    return difference


def _tokens(examples: Sequence[Example], metric: str) -> list[float]:
    return [(example.statistics or {})[metric][1] for example in examples]


def _judged(pending: GateResult, difference: Difference) -> GateResult:
    """Return the result that follows from a difference: candidate minus other."""
    interval = difference.interval
    low, high, gain = interval.low, interval.high, difference.value
    if direction(pending.metric) == "minimize":
        low, high, gain = -high, -low, -gain
    state: GateState = "passed" if low > pending.margin else "not better"
    if pending.examples < FEWEST_EXAMPLES:
        state = "too few"
    return replace(pending, gain=gain, low=low, high=high, state=state)
