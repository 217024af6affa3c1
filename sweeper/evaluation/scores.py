"""The scores of one model on one set of examples: computed, stored, and read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.evaluation.examples import PromptExample
from sweeper.evaluation.intervals import Interval, score_interval
from sweeper.evaluation.metrics import load_metric
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.store import Example, ScoreRecord


@dataclass(frozen=True)
class MetricScore:
    """One metric of one model.

    Attributes:
        value: The score over all examples.
        interval: Its bootstrap interval.
        examples: The score of each example alone.
        statistics: What the score is computed from, a row per example; see ``metrics.base.Metric``.
    """

    value: float
    interval: Interval
    examples: tuple[float, ...]
    statistics: tuple[tuple[float, ...], ...]

    @property
    def statistics_NK(self) -> FloatArray:
        """The statistics as an array."""
        return np.array(self.statistics, dtype=np.float64)


@dataclass(frozen=True)
class Scores:
    """All metrics of one model, with the texts they were computed on; ``dataclasses.asdict`` gives plain data.

    Attributes:
        metrics: Scores by the metric's name, in the order the study names them.
        prompts: The prompts as people read them; empty texts for rows without one.
        references: The right answers, stripped.
        predictions: The generated answers, stripped; empty if no metric needed text.
        cut: Number of answers that had not ended when the most tokens were generated; 0 for stored scores.
    """

    metrics: dict[str, MetricScore]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    predictions: tuple[str, ...]
    cut: int = 0


def scores_of(
    names: Sequence[str],
    statistics: Mapping[str, FloatArray],
    examples: Sequence[PromptExample],
    predictions: tuple[str, ...] = (),
    cut: int = 0,
) -> Scores:
    """Return the scores of the named metrics from their statistics on the same examples."""
    return Scores(
        {name: metric_score(name, statistics[name]) for name in names},
        tuple(example.shown_prompt for example in examples),
        tuple(example.reference for example in examples),
        predictions,
        cut,
    )


def metric_score(name: str, statistics_NK: FloatArray) -> MetricScore:
    """Return a metric's score, interval and scores per example from its statistics."""
    metric = load_metric(name)
    return MetricScore(
        value=float(metric.aggregate(statistics_NK.sum(axis=0, keepdims=True), len(statistics_NK))[0]),
        interval=score_interval(statistics_NK, metric.aggregate),
        examples=tuple(metric.example_scores(statistics_NK).tolist()),
        statistics=tuple(map(tuple, statistics_NK.tolist())),
    )


def example_rows(scores: Scores) -> Iterator[Example]:
    """Yield the examples of scores as they are stored, with every generated text."""
    for index, reference in enumerate(scores.references):
        yield Example(
            index,
            scores.prompts[index],
            reference,
            scores.predictions[index] if scores.predictions else "",
            {name: metric.examples[index] for name, metric in scores.metrics.items()},
            {name: metric.statistics[index] for name, metric in scores.metrics.items()},
        )


def stored_scores(stored: Sequence[ScoreRecord], examples: Sequence[Example]) -> Scores | None:
    """Return stored scores as they were computed; None if too little of them was stored."""
    metrics = {score.metric: metric for score in stored if (metric := _stored_metric(score, examples)) is not None}
    if not examples or not stored or len(metrics) < len(stored):
        return None
    texts = tuple(example.generated for example in examples)
    return Scores(
        metrics=metrics,
        prompts=tuple(example.prompt for example in examples),
        references=tuple(example.reference for example in examples),
        predictions=texts if any(texts) else (),
    )


def _stored_metric(score: ScoreRecord, examples: Sequence[Example]) -> MetricScore | None:
    name = score.metric
    statistics = [(example.statistics or {}).get(name) for example in examples]
    kept = [tuple(each) for each in statistics if each is not None]
    if score.low is None or score.high is None or len(kept) < len(examples):
        return None
    own = tuple(example.scores[name] for example in examples)
    return MetricScore(score.score, Interval(score.low, score.high), own, tuple(kept))
