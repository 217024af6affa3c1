"""Comparison of several subjects with a reference: origins, scores, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.config.evaluation import direction
from sweeper.errors import DataError, UserError
from sweeper.evaluation.compare.subjects import ComparedSubject
from sweeper.evaluation.comparison import FEWEST_EXAMPLES, Difference, Verdict, paired_difference, paired_statistics
from sweeper.evaluation.intervals import LEVEL, paired_p_value
from sweeper.evaluation.metrics import load_metric
from sweeper.store import ScoreRecord


@dataclass(frozen=True)
class Against:
    """The paired comparison of a subject with the reference on one metric.

    Attributes:
        difference: Subject minus reference, with its uncorrected interval.
        p: Bootstrap p-value of no difference.
        corrected_p: The same, corrected for the number of subjects (Holm).
        verdict: Better or worse if the corrected p-value is below 5 %.
    """

    difference: Difference
    p: float
    corrected_p: float
    verdict: Verdict


@dataclass(frozen=True)
class Examples:
    """Examples on which a subject does better than, worse than, or as well as the reference, by the deciding metric."""

    wins: tuple[int, ...]
    losses: tuple[int, ...]
    ties: tuple[int, ...]


@dataclass(frozen=True)
class ComparedFact:
    """One fact of all subjects.

    Attributes:
        name: Name of the fact.
        values: Its value by the subject's key. Base models have no hyperparameters, so they are missing in those rows.
    """

    name: str
    values: Mapping[str, Any]

    @property
    def differs(self) -> bool:
        """Whether the values differ."""
        return len({repr(value) for value in self.values.values()}) > 1


@dataclass(frozen=True)
class SideBySide:
    """The whole comparison.

    Attributes:
        subjects: The subjects in the order given.
        reference: Key of the subject that the others are compared with.
        metric: The deciding metric; None if no subject was scored.
        metrics: Every metric that any subject was scored with.
        scores: Scores by metric and key.
        against: The paired comparisons by metric and key.
        unpaired: Why no paired comparison is possible, by key.
        examples: Wins and losses by key.
        parameters: The hyperparameters.
        origins: Study, base model, data, preset.
        costs: Time, memory, latency, weights.
    """

    subjects: tuple[ComparedSubject, ...]
    reference: str
    metric: str | None
    metrics: tuple[str, ...]
    scores: Mapping[str, Mapping[str, ScoreRecord]]
    against: Mapping[str, Mapping[str, Against]]
    unpaired: Mapping[str, str]
    examples: Mapping[str, Examples]
    parameters: tuple[ComparedFact, ...]
    origins: tuple[ComparedFact, ...]
    costs: tuple[ComparedFact, ...]

    def subject(self, key: str) -> ComparedSubject:
        """Return the subject of a key."""
        return next(subject for subject in self.subjects if subject.key == key)

    @property
    def others(self) -> tuple[ComparedSubject, ...]:
        """All subjects but the reference."""
        return tuple(subject for subject in self.subjects if subject.key != self.reference)

    @property
    def paired(self) -> tuple[ComparedSubject, ...]:
        """The reference, and the subjects that answered the same examples."""
        return self.subject(self.reference), *(subject for subject in self.others if subject.key in self.examples)


def side_by_side(
    subjects: Sequence[ComparedSubject], *, reference: str | None = None, metric: str | None = None
) -> SideBySide:
    """Compare subjects with one of them.

    By default the first subject is the reference, and its study's metric decides.

    Raises:
        UserError: If the reference is not a subject, or no subject was scored with the metric.
    """
    by_key = {subject.key: subject for subject in subjects}
    reference = reference or subjects[0].key
    if reference not in by_key:
        raise UserError(f"reference {reference[:120]!r} is not among the subjects: {', '.join(by_key)}")
    base = by_key[reference]
    ordered = [base, *(subject for subject in subjects if subject is not base)]
    metrics = tuple(dict.fromkeys(name for subject in ordered for name in subject.scores))
    if metric is not None and metric not in metrics:
        raise UserError(f"no subject was scored with {metric[:120]!r}; there are {', '.join(metrics) or 'no scores'}")
    deciding = metric or _deciding(base, metrics)
    unpaired = {subject.key: why for subject in ordered[1:] if (why := _why_unpaired(subject, base, metrics))}
    paired = [subject for subject in ordered[1:] if subject.key not in unpaired]
    return SideBySide(
        subjects=tuple(subjects),
        reference=reference,
        metric=deciding,
        metrics=metrics,
        scores={m: {s.key: s.scores[m] for s in subjects if m in s.scores} for m in metrics},
        against={m: _against(paired, base, m) for m in metrics},
        unpaired=unpaired,
        examples={s.key: _examples(s, base, deciding) for s in paired if deciding is not None},
        parameters=_parameters(subjects),
        origins=_origins(subjects),
        costs=_costs(subjects),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for multiple comparisons.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6. The
    chance that any of several true null hypotheses is rejected stays below the level, whatever their dependence.
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        corrected[key] = largest
    return corrected


def _deciding(reference: ComparedSubject, metrics: Sequence[str]) -> str | None:
    evaluation = reference.study.config.get("evaluation", {})
    wanted = [*evaluation.get("metrics", ()), *metrics]
    return next((name for name in wanted if name in metrics), None)


def _why_unpaired(subject: ComparedSubject, reference: ComparedSubject, metrics: Sequence[str]) -> str | None:
    """Return why no paired comparison of two subjects is possible on any metric; None if one is."""
    for one in (subject, reference):
        if not one.scores:
            return f"{one.key} was not scored on the test split"
    reasons = []
    for metric in metrics:
        try:
            paired_statistics(subject.examples, reference.examples, metric)
        except DataError as error:
            reasons.append(str(error))
        else:
            return None
    return reasons[0]


def _against(others: Sequence[ComparedSubject], reference: ComparedSubject, metric: str) -> dict[str, Against]:
    differences, p_values = {}, {}
    for subject in others:
        try:
            pair = paired_statistics(subject.examples, reference.examples, metric)
        except DataError:
            continue  # this metric was not measured for both
        differences[subject.key] = paired_difference(*pair, metric)
        p_values[subject.key] = paired_p_value(*pair, load_metric(metric).aggregate)
    corrected = holm(p_values)
    count = len(reference.examples)
    return {
        key: Against(found, p_values[key], corrected[key], _verdict(found.value, corrected[key], count, metric))
        for key, found in differences.items()
    }


def _verdict(difference: float, p: float, count: int, metric: str) -> Verdict:
    if count < FEWEST_EXAMPLES or p >= 1 - LEVEL or difference == 0:
        return "undecided"
    return "better" if (difference > 0) == (direction(metric) == "maximize") else "worse"


def _examples(subject: ComparedSubject, reference: ComparedSubject, metric: str) -> Examples:
    sign = 1 if direction(metric) == "maximize" else -1
    kinds: tuple[list[int], list[int], list[int]] = ([], [], [])
    for mine, theirs in zip(subject.examples, reference.examples, strict=True):
        if metric in mine.scores and metric in theirs.scores:
            gain = sign * (mine.scores[metric] - theirs.scores[metric])
            kinds[0 if gain > 0 else 1 if gain < 0 else 2].append(mine.index)
    return Examples(*(tuple(kind) for kind in kinds))


def _parameters(subjects: Sequence[ComparedSubject]) -> tuple[ComparedFact, ...]:
    flat = {}
    for subject in subjects:
        if subject.trial is None:
            continue
        own = dict(subject.trial.parameters)
        further = own.pop("trl", None) or {}
        flat[subject.key] = {**own, **{f"trl.{name}": value for name, value in further.items()}}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    return tuple(ComparedFact(name, {key: values.get(name) for key, values in flat.items()}) for name in names)


def _origins(subjects: Sequence[ComparedSubject]) -> tuple[ComparedFact, ...]:
    splits = dict.fromkeys(split for subject in subjects for split in subject.study.data_sha256)
    facts = {subject.key: _origin(subject, splits) for subject in subjects}
    return tuple(
        ComparedFact(name, {key: of[name] for key, of in facts.items()}) for name in next(iter(facts.values()))
    )


def _origin(subject: ComparedSubject, splits: Mapping[str, None]) -> dict[str, Any]:
    study, trial = subject.study, subject.trial
    config = study.config
    found = {
        "study": study.name,
        "base model": subject.base_model,
        "base model hash": subject.fingerprint,
        "technique": _kind(config, "technique"),
        "preset": study.space.get("preset"),
        "deciding metric of the search": (config.get("evaluation") or {}).get("metric"),
        "seed of the study": study.seed,
        "seed of the trial": None if trial is None else trial.seed,
        "sweeper": study.sweeper_version,
        "packages": ", ".join(f"{name} {number}" for name, number in sorted(study.packages.items())),
    }
    return found | {f"data hash, {split}": study.data_sha256.get(split) for split in splits}


def _kind(config: Mapping[str, Any], part: str) -> Any:
    value = config.get(part)
    return value.get("kind") if isinstance(value, dict) else value


_COSTS = {
    "training seconds": "train_seconds",
    "training tokens": "tokens",
    "peak memory in MiB": "peak_memory_bytes",
    "ms per generated token": "latency_ms",
    "weights, base and adapter": "total_parameters",
    "adapter in MiB": "adapter_bytes",
}
"""Costs of a trial and its adapter, by the field of its record."""


def _costs(subjects: Sequence[ComparedSubject]) -> tuple[ComparedFact, ...]:
    found = []
    for name, field in _COSTS.items():
        scale = 1024**2 if name.endswith("MiB") else 1
        values = {s.key: None if s.trial is None else getattr(s.trial, field) for s in subjects}
        if any(values.values()):
            found.append(ComparedFact(name, {key: value and value / scale for key, value in values.items()}))
    return tuple(found)
