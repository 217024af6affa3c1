"""Rewards of a policy's greedy answers to held-out prompts, and its divergence from the base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeper.config.evaluation import TASK_METRICS, EvaluationConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import Policy
from sweeper.data.rendering import Row, answer_text, without_reasoning
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.evaluation.batching import OnProgress, part_of
from sweeper.evaluation.examples import PromptExample
from sweeper.evaluation.generation import Answer, answers
from sweeper.evaluation.losses import divergences
from sweeper.evaluation.metrics import load_metric
from sweeper.evaluation.metrics.base import FloatArray
from sweeper.evaluation.scores import Scores, scores_of
from sweeper.training.base_model import BaseModel


class PolicyScorer:
    """Scores policies on the same prompts; made before an adapter is put on the base.

    The base's own answers, which the win rate compares with, are generated once and kept with it.
    """

    def __init__(
        self,
        base: BaseModel,
        rows: Sequence[Row],
        config: EvaluationConfig,
        technique: Policy,
        sources: RewardSources | None,
    ) -> None:
        from sweeper.training.rewards import build_rewards  # imports torch where a reward is a model

        self._base = base
        self._rows = rows
        self._config = config
        self._rewards = build_rewards(technique.rewards, sources, base.device)
        self._key = (technique.model_dump_json(), config.max_new_tokens, tuple(map(repr, rows)))
        self._examples = [_as_example(row) for row in rows]
        self._longest = config.max_new_tokens or technique.max_completion_length
        if "win_rate" in config.metrics:
            self._answered(base.model, None)

    def __call__(self, model: Any, on_progress: OnProgress | None = None) -> Scores:
        """Return the scores of the base itself or of the base with an adapter on it; raises as ``Scorer`` does."""
        total = 2 * len(self._rows)  # a row counts once for its answer and once for the divergence
        answers, rewards = self._answered(model, part_of(on_progress, 0, total))
        own, reasoning = ModelTokenizer.of(self._base.tokenizer), self._config.reasoning == "compared"
        texts = tuple(answer_text(answer.tokens, own, reasoning=reasoning) for answer in answers)
        references = [example.reference for example in self._examples]
        statistics: dict[str, FloatArray] = {"mean_reward": rewards.reshape(-1, 1)}
        if "win_rate" in self._config.metrics:
            _, before = self._answered(self._base.model, None)
            statistics["win_rate"] = (np.sign(rewards - before).reshape(-1, 1) + 1) / 2
        if "kl" in self._config.metrics:
            progress = part_of(on_progress, len(self._rows), total)
            statistics["kl"] = divergences(model, self._base.model, answers, on_progress=progress)
        for name in set(self._config.metrics) & set(TASK_METRICS):
            statistics[name] = load_metric(name).statistics(texts, references)
        cut = sum(not answer.ended for answer in answers)
        return scores_of(self._config.metrics, statistics, self._examples, texts, cut)

    def _answered(self, model: Any, on_progress: OnProgress | None) -> tuple[list[Answer], FloatArray]:
        """Return a model's answers and their rewards; the base's are cached."""
        if model is not self._base.model:
            return self._answer(model, on_progress)
        if self._key not in self._base.measured:
            self._base.measured[self._key] = self._answer(model, on_progress)
        found: tuple[list[Answer], FloatArray] = self._base.measured[self._key]
        return found

    def _answer(self, model: Any, on_progress: OnProgress | None) -> tuple[list[Answer], FloatArray]:
        from sweeper.training.rewards import earned

        prompts = [row["prompt"] for row in self._rows]
        found = answers(model, self._base.tokenizer, prompts, self._longest, on_progress=on_progress)
        columns = {"reference": [row.get("reference") for row in self._rows]}
        own = columns if any("reference" in row for row in self._rows) else {}
        return found, np.array(earned(self._rewards, prompts, [answer.text for answer in found], own))


def _as_example(row: Row) -> PromptExample:
    """Return a prompt as an example; without a reference the right answer is empty."""
    prompt = row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"])
    return PromptExample(prompt, without_reasoning(row.get("reference") or "").strip())
