"""Scores of a model on a study's held-out rows, by what its technique is judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.config.evaluation import LOSSES, EvaluationConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import Policy, Technique
from sweeper.data.rendering import Rendering, Row, answer_text
from sweeper.data.splits import read_prepared
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.evaluation.batching import OnProgress, part_of
from sweeper.evaluation.examples import PromptExample, read_examples
from sweeper.evaluation.generation import answers
from sweeper.evaluation.losses import answer_losses, answer_scores
from sweeper.evaluation.metrics import load_metric
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.evaluation.policies import PolicyScorer
from sweeper.evaluation.preferences import answers_in, implicit_rewards, log_likelihoods, preference_statistics
from sweeper.evaluation.scores import Scores, scores_of
from sweeper.training.base_model import BaseModel


class Scorer:
    """Scores the base model, or adapters on it, on the same rows; made before an adapter is put on the base.

    Techniques with a reference are scored against the base, whose own likelihoods are measured once and kept with it.
    """

    def __init__(
        self,
        base: BaseModel,
        rows: Sequence[Row],
        config: EvaluationConfig,
        technique: Technique,
        sources: RewardSources | None = None,
    ) -> None:
        self._base = base
        self._rows = rows
        self._config = config
        self._technique = technique
        self._policies = PolicyScorer(base, rows, config, technique, sources) if isinstance(technique, Policy) else None
        self._reference = self._base_likelihoods() if technique.has_reference and self._ranks else None

    def __call__(self, model: Any, on_progress: OnProgress | None = None) -> Scores:
        """Return the scores of the base itself, or of the base with an adapter on it.

        Raises:
            DataError: If the rows cannot be scored with these metrics.
            RewardError: If a reward fails.
            OutOfMemoryError: If a single row does not fit in memory.
        """
        if self._policies is not None:
            return self._policies(model, on_progress)
        if self._ranks:
            return self._preferences(model, on_progress)
        return score(model, self._base.tokenizer, self._rows, self._config, on_progress)

    @property
    def _ranks(self) -> bool:
        return self._technique.rows in ("pairs", "labelled")

    def _base_likelihoods(self) -> FloatArray:
        key = (self._technique.kind, tuple(map(repr, self._rows)))
        if key not in self._base.measured:
            self._base.measured[key] = log_likelihoods(self._base.model, self._base.tokenizer, self._rows)
        found: FloatArray = self._base.measured[key]
        return found

    def _preferences(self, model: Any, on_progress: OnProgress | None) -> Scores:
        examples = answers_in(self._rows, self._base.tokenizer)
        if self._technique.head == "score":
            rewards_A = answer_scores(model, examples, on_progress=on_progress)
        else:
            likelihoods_A2 = log_likelihoods(model, self._base.tokenizer, self._rows, on_progress)
            rewards_A = implicit_rewards(likelihoods_A2, self._reference)
        statistics = preference_statistics(self._rows, rewards_A)
        return scores_of(self._config.metrics, statistics, examples[: len(self._rows)])


def task_metric(
    base: BaseModel,
    validation: Path,
    evaluation: EvaluationConfig,
    technique: Technique,
    sources: RewardSources | None = None,
    on_progress: OnProgress | None = None,
) -> Callable[[Any], dict[str, float]] | None:
    """Return a function that measures answers, rankings or rewards on the validation split; None if the loss suffices.

    Call it before an adapter is put on the base. ``on_progress`` is called with the number of rows done.
    """
    if evaluation.metric in LOSSES and technique.kind == "sft":
        return None
    beside = technique.metrics if technique.kind != "sft" else (evaluation.metric,)
    names = tuple(dict.fromkeys((*(name for name in (evaluation.metric,) if name not in LOSSES), *beside)))
    measured = evaluation.model_copy(update={"metrics": names})
    scorer = Scorer(base, read_prepared(validation), measured, technique, sources)
    return lambda model: {name: metric.value for name, metric in scorer(model, on_progress).metrics.items()}


def score(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    config: EvaluationConfig,
    on_progress: OnProgress | None = None,
) -> Scores:
    """Score a model on held-out rows with the study's metrics on texts and losses.

    Answers are generated if a metric needs text, from the prompt as it was trained, and compared with the right answer
    as the chat template renders it; token losses are computed if a metric needs those.

    Args:
        model: A causal language model of transformers, or one wrapped by PEFT; adapters count as they are set.
        tokenizer: Its tokenizer.
        rows: Prepared rows: ``prompt`` and ``completion``, or ``messages``, or ``text``.
        config: The metrics, and the longest answer.
        on_progress: Called after every batch; a row counts once for its answer and once for its loss.

    Raises:
        DataError: If the rows cannot be scored with these metrics.
        OutOfMemoryError: If a single row does not fit in memory.
    """
    examples = read_examples(rows, tokenizer, reasoning=config.reasoning == "compared")
    on_text = [name for name in config.metrics if name not in LOSSES]
    on_losses = [name for name in config.metrics if name in LOSSES]
    total = len(examples) * (bool(on_text) + bool(on_losses))
    predictions: tuple[str, ...] = ()
    cut = 0
    statistics: dict[str, FloatArray] = {}
    if on_text:
        _require_prompts(examples, on_text)
        rendered = [example.rendering for example in examples if example.rendering is not None]
        longest = config.max_new_tokens or answer_room(rendered)
        progress = part_of(on_progress, 0, total)
        found = answers(model, tokenizer, [row.prompt for row in rendered], longest, on_progress=progress)
        own, reasoning = ModelTokenizer.of(tokenizer), config.reasoning == "compared"
        predictions = tuple(answer_text(answer.tokens, own, reasoning=reasoning) for answer in found)
        cut = sum(not answer.ended for answer in found)
        references = [example.reference for example in examples]
        statistics |= {name: load_metric(name).statistics(predictions, references) for name in on_text}
    if on_losses:
        progress = part_of(on_progress, total - len(examples), total)
        statistics |= dict.fromkeys(on_losses, answer_losses(model, examples, on_progress=progress))
    return scores_of(config.metrics, statistics, examples, predictions, cut)


def answer_room(rows: Sequence[Rendering]) -> int:
    """Return the most tokens to generate: those of the longest right answer and a quarter more, at least 16 more."""
    longest = max(len(row.answer) for row in rows)
    return longest + max(16, longest // 4)


def _require_prompts(examples: Sequence[PromptExample], metrics: Sequence[str]) -> None:
    number = next((n for n, example in enumerate(examples, start=1) if not example.has_prompt), None)
    if number is not None:
        raise DataError(
            f"row {number} is plain text without a prompt, so there is no answer to score with {', '.join(metrics)}; "
            "set evaluation.metrics to perplexity, or give the data as prompt and completion"
        )
