"""Score a model on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.config.evaluation import LOSSES, EvaluationConfig
from sweeper.errors import DataError
from sweeper.evaluation.intervals import score_interval
from sweeper.evaluation.metrics import load_metric
from sweeper.evaluation.metrics.aggregates import FloatArray
from sweeper.evaluation.rows import Example, read_examples
from sweeper.evaluation.scores import MetricScore, Scores

if TYPE_CHECKING:
    from sweeper.evaluation.batching import Progress


def score(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    config: EvaluationConfig,
    on_progress: Progress | None = None,
) -> Scores:
    """Score a model on held-out rows with the study's metrics.

    Answers are generated if a metric needs text, and token losses computed if one needs those. References and
    answers are compared without the white space at their ends.

    Args:
        model: A causal language model of transformers, or one wrapped by PEFT; adapters count as they are set.
        tokenizer: Its tokenizer.
        rows: Prepared rows: ``prompt`` and ``completion``, or ``messages``, or ``text``.
        config: Which metrics, and how long answers may be.
        on_progress: Told after every batch; a row counts once for its answer and once for its loss.

    Raises:
        DataError: If the rows cannot be scored with these metrics.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    from sweeper.evaluation.generation import generate  # these two import torch, and the types above do not need it
    from sweeper.evaluation.losses import answer_losses

    examples = read_examples(rows)
    on_text = [name for name in config.metrics if name not in LOSSES]
    on_losses = [name for name in config.metrics if name in LOSSES]
    total = len(examples) * (bool(on_text) + bool(on_losses))
    references = tuple(example.reference for example in examples)
    predictions: tuple[str, ...] = ()
    statistics: dict[str, FloatArray] = {}
    if on_text:
        _require_prompts(examples, on_text)
        prompts = [example.prompt for example in examples]
        progress = part_of(on_progress, 0, total)
        answers = generate(model, tokenizer, prompts, config.max_new_tokens, on_progress=progress)
        predictions = tuple(answer.strip() for answer in answers)
        statistics |= {name: load_metric(name).statistics(predictions, references) for name in on_text}
    if on_losses:
        progress = part_of(on_progress, total - len(examples), total)
        statistics |= dict.fromkeys(on_losses, answer_losses(model, tokenizer, examples, on_progress=progress))
    metrics: dict[str, MetricScore] = {name: metric_score(name, statistics[name]) for name in config.metrics}
    return Scores(metrics, tuple(example.shown_prompt for example in examples), references, predictions)


def metric_score(name: str, statistics_NK: FloatArray) -> MetricScore:
    """Return a metric's score, interval and scores per example from its statistics."""
    metric = load_metric(name)
    return MetricScore(
        value=float(metric.aggregate(statistics_NK.sum(axis=0, keepdims=True), len(statistics_NK))[0]),
        interval=score_interval(statistics_NK, metric.aggregate),
        examples=tuple(metric.example_scores(statistics_NK).tolist()),
        statistics=tuple(map(tuple, statistics_NK.tolist())),
    )


def _require_prompts(examples: Sequence[Example], metrics: Sequence[str]) -> None:
    number = next((n for n, example in enumerate(examples, start=1) if not example.has_prompt), None)
    if number is not None:
        raise DataError(
            f"row {number} is plain text without a prompt, so there is no answer to score with {', '.join(metrics)}; "
            "set evaluation.metrics to perplexity, or give the data as prompt and completion"
        )


def part_of(on_progress: Progress | None, offset: int, total: int) -> Progress | None:
    """Return progress on a part of the work as progress on the whole."""
    if on_progress is None:
        return None
    return lambda done, _: on_progress(offset + done, total)
