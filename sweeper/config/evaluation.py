"""Evaluation settings: the metric of the search and those of the final comparison."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from sweeper.config.base import Frozen

Objective = Literal["parameters", "adapter_size", "training_time", "latency"]

MEASURES: dict[str, str] = {
    "parameters": "total_parameters",
    "adapter_size": "adapter_bytes",
    "training_time": "train_seconds",
    "latency": "latency_ms",
}
"""The field of a trial's result for each objective."""

SMALLEST: tuple[Objective, ...] = ("parameters", "latency")
"""The objectives of a search for the smallest model that meets a goal."""

Loss = Literal["eval_loss", "perplexity"]
"""Metrics that need no generated text."""

TaskMetric = Literal[
    "exact_match",
    "token_f1",
    "accuracy",
    "rouge1",
    "rouge2",
    "rougeL",
    "bleu",
    "chrf",
    "wer",
    "json_validity",
    "field_match",
]
"""Metrics on generated text."""

PreferenceMetric = Literal["preference_accuracy", "preference_margin"]
"""How often, and by how much, the better answer is ranked above the worse one."""

RewardMetric = Literal["mean_reward", "win_rate", "kl"]
"""Rewards of answers to held-out prompts, how often they beat the base model's, and the policy's distance from it."""

Metric = Literal[Loss, TaskMetric, PreferenceMetric, RewardMetric]

LOSSES: tuple[str, ...] = get_args(Loss)
TASK_METRICS: tuple[str, ...] = get_args(TaskMetric)
PREFERENCE_METRICS: tuple[str, ...] = get_args(PreferenceMetric)
REWARD_METRICS: tuple[str, ...] = get_args(RewardMetric)
METRICS: tuple[str, ...] = (*LOSSES, *TASK_METRICS, *PREFERENCE_METRICS, *REWARD_METRICS)
SMALLER_IS_BETTER: tuple[str, ...] = (*LOSSES, "wer", "kl")
UNBOUNDED: tuple[str, ...] = (*LOSSES, "wer", "preference_margin", "mean_reward", "kl")
"""Metrics that are not between 0 and 1."""

METRICS_OF = {
    "answers": (*LOSSES, *TASK_METRICS),
    "pairs": ("eval_loss", *PREFERENCE_METRICS),
    "labelled": ("eval_loss", *PREFERENCE_METRICS),
    "prompts": (*REWARD_METRICS, *TASK_METRICS),
}
"""The metrics of a technique, by the rows it learns from."""


class EvaluationConfig(Frozen):
    """Comparison of trials and choice of the winner.

    Attributes:
        metric: Decides the search; measured on the validation split.
        goal: Target of ``metric``. With several objectives the winner is the smallest model that reaches it; with
            one, the report says whether the winner does.
        objectives: Further quantities to minimise; with any, the result is a Pareto front and nothing is pruned.
        points: Evaluations per trial, evenly spread over its training.
        metrics: Scores of the final comparison on the test split; the first decides it.
        candidates: Number of the best configurations to score on the test split.
        max_new_tokens: Longest generated answer, in tokens; None for what the longest right answer needs.
        reasoning: Whether what stands before an answer's ``</think>`` (or another template's end of reasoning) is left
            out of answers and references, or compared with them.
        examples: Generated texts shown side by side in the report.
        promotion_margin: Smallest lower bound of the paired difference to the production version that allows a
            version to replace it, in units of the first of ``metrics``.
    """

    metric: Metric = "eval_loss"
    goal: float | None = None
    objectives: tuple[Objective, ...] = ()
    points: int = Field(default=6, ge=1, le=1000)
    metrics: tuple[Metric, ...] = Field(default=("exact_match", "token_f1"), min_length=1)
    candidates: int = Field(default=3, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    reasoning: Literal["left_out", "compared"] = "left_out"
    examples: int = Field(default=5, ge=0)
    promotion_margin: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _goal_in_reach(self) -> EvaluationConfig:
        if self.goal is not None and self.metric not in UNBOUNDED and not 0 <= self.goal <= 1:
            raise ValueError(f"goal: {self.metric} is from 0 to 1 (0.9 is 90 %); found {self.goal:g}")
        return self

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """The direction in which the deciding metric improves."""
        return direction(self.metric)


def direction(metric: str) -> Literal["minimize", "maximize"]:
    """Return the direction in which a metric improves; KeyError if no metric has this name."""
    if metric not in METRICS:
        raise KeyError(metric)
    return "minimize" if metric in SMALLER_IS_BETTER else "maximize"
