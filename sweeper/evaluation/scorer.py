"""Score models on a study's held-out rows as its technique asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.technique import GRPO, RLOO, Technique
from sweeper.evaluation.metrics.aggregates import FloatArray
from sweeper.evaluation.policies import PolicyScorer
from sweeper.evaluation.preferences import answers_in, implicit_rewards, log_likelihoods, preference_statistics
from sweeper.evaluation.scores import Scores
from sweeper.evaluation.scoring import metric_score, score
from sweeper.training.base_model import BaseModel

if TYPE_CHECKING:
    from sweeper.evaluation.batching import Progress

Row = Mapping[str, Any]


class Scorer:
    """Scores the base model, or adapters on it, on the same rows; made while the base stands without an adapter.

    What the base alone says of the rows is measured once and kept with it, because techniques with a reference are
    scored against it.
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
        self._policies = (
            PolicyScorer(base, rows, config, technique, sources) if isinstance(technique, GRPO | RLOO) else None
        )
        self._reference = self._measured_once() if technique.has_reference and self._ranks else None

    def __call__(self, model: Any, on_progress: Progress | None = None) -> Scores:
        """Return the scores of a model: the base's own, or one with an adapter on it.

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

    def _measured_once(self) -> FloatArray:
        key = (self._technique.kind, tuple(map(repr, self._rows)))
        if key not in self._base.measured:
            self._base.measured[key] = log_likelihoods(self._base.model, self._base.tokenizer, self._rows)
        found: FloatArray = self._base.measured[key]
        return found

    def _preferences(self, model: Any, on_progress: Progress | None) -> Scores:
        examples = answers_in(self._rows)
        if self._technique.head == "score":
            from sweeper.evaluation.reward_models import answer_scores  # imports torch

            rewards_A = answer_scores(model, self._base.tokenizer, examples, on_progress=on_progress)
        else:
            likelihoods_A2 = log_likelihoods(model, self._base.tokenizer, self._rows, on_progress)
            rewards_A = implicit_rewards(likelihoods_A2, self._reference)
        statistics = preference_statistics(self._rows, rewards_A)
        examples = examples[: len(self._rows)]
        return Scores(
            {name: metric_score(name, statistics[name]) for name in self._config.metrics},
            tuple(example.shown_prompt for example in examples),
            tuple(example.reference for example in examples),
            (),
        )
