"""Subjects to compare, made from what each example scored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sweeper.config.trial import Outcome
from sweeper.evaluation.compare.subjects import ComparedSubject
from sweeper.evaluation.intervals import score_interval
from sweeper.evaluation.metrics import load_metric
from sweeper.store import Example, ScoreRecord, StudyRecord, StudyState, TrialKind, TrialRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)


def study(name: str = "itn", *, data: str = "a", **more: Any) -> StudyRecord:
    facts: dict[str, Any] = {
        "name": name,
        "state": StudyState.FINISHED,
        "created_at": AT,
        "started_at": AT,
        "ended_at": AT,
        "file_name": "f.yaml",
        "file_text": "",
        "config": {"evaluation": {"metric": "eval_loss", "metrics": ["exact_match", "token_f1"]}},
        "space": {"preset": "lora"},
        "seed": 1,
        "sweeper_version": "0.1.0",
        "packages": {"torch": "2.13"},
        "data_sha256": {"train": data * 64, "test": data * 64},
        "base_model": "m",
        "base_model_fingerprint": "f" * 64,
    }
    return StudyRecord(**facts | more)


def trial(number: int, **more: Any) -> TrialRecord:
    facts: dict[str, Any] = dict.fromkeys(TrialRecord.__dataclass_fields__)
    facts |= {"number": number, "kind": TrialKind.SAMPLED, "seed": number, "outcome": Outcome.COMPLETE, "metrics": {}}
    facts |= {"parameters": {"learning_rate": 1e-3 * (number + 1), "trl": {"beta2": 0.9}}, "steps": 4, "total_steps": 4}
    facts |= {"device": "cpu", "started_at": AT, "train_seconds": 60.0, "tokens": 1000, "epochs_trained": 1.0}
    return TrialRecord(**facts | more)


def subject(
    number: int | None,
    scored: list[float],
    *,
    of: StudyRecord | None = None,
    metrics: tuple[str, ...] = ("exact_match",),
    text: str = "answer",
    **more: Any,
) -> ComparedSubject:
    """A trial, or a base model for None, with a score an example; a metric of losses gets tokens too."""
    import numpy as np

    of = of or study()
    examples = tuple(
        Example(
            index,
            f"prompt {index}",
            f"due {index}",
            f"{text} {number} {score:g}",
            dict.fromkeys(metrics, score),
            {metric: [score, 1.0] if metric in ("eval_loss", "perplexity") else [score] for metric in metrics},
        )
        for index, score in enumerate(scored)
    )
    scores = {}
    for metric in metrics if scored else ():
        rows = np.array([example.statistics[metric] for example in examples])
        interval = score_interval(rows, load_metric(metric).aggregate)
        value = float(load_metric(metric).aggregate(rows.sum(axis=0, keepdims=True), len(rows))[0])
        scores[metric] = ScoreRecord(metric, value, interval.low, interval.high)
    key = f"{of.name}:base" if number is None else f"{of.name}:{number}"
    return ComparedSubject(key, of, None if number is None else trial(number, **more), None, "", scores, examples)


GOOD = [1.0] * 45 + [0.0] * 5
POOR = [1.0] * 10 + [0.0] * 40
LIKE_GOOD = [1.0] * 44 + [0.0] * 5 + [1.0]
