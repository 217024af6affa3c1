"""Search settings: samplers and pruners, tagged by ``kind``, and the budget."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen, word_is_kind
from sweeper.config.space import Space


def _by_kind(value: Any) -> Any:
    """``sampler: tpe`` means ``sampler: {kind: tpe}``, and ``pruner: null`` means ``pruner: none``."""
    return word_is_kind("none" if value is None else value)


class AutoSampler(Frozen):
    """GP up to 100 trials with one objective and no conditional ranges, TPE otherwise."""

    kind: Literal["auto"] = "auto"


class GPSampler(Frozen):
    """Gaussian-process Bayesian optimisation."""

    kind: Literal["gp"] = "gp"
    startup_trials: int = Field(default=8, ge=1)


class TPESampler(Frozen):
    """Tree-structured Parzen estimator: multivariate, constant liar, grouped for conditional spaces."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: int = Field(default=8, ge=1)


class RandomSampler(Frozen):
    """Independent uniform draws."""

    kind: Literal["random"] = "random"


class GridSampler(Frozen):
    """Every combination once; ranges are cut into ``points`` values."""

    kind: Literal["grid"] = "grid"
    points: int = Field(default=4, ge=2)


class QMCSampler(Frozen):
    """Quasi-random draws (scrambled Sobol): more even than random."""

    kind: Literal["qmc"] = "qmc"


class CmaEsSampler(Frozen):
    """Covariance-matrix adaptation; for many trials over a numeric space."""

    kind: Literal["cmaes"] = "cmaes"


NamedSampler = GPSampler | TPESampler | RandomSampler | GridSampler | QMCSampler | CmaEsSampler
"""Every sampler that ``auto`` may resolve to."""

Sampler = Annotated[
    AutoSampler | NamedSampler,
    Field(discriminator="kind"),
    BeforeValidator(_by_kind),
]


class AutoPruner(Frozen):
    """Halving with eta 2 from a third of training, after warmup, among trials of the same length."""

    kind: Literal["auto"] = "auto"


class HalvingPruner(Frozen):
    """Asynchronous successive halving at equal progress: a trial continues if in the best 1/eta at its rung.

    ``start`` is the first rung, as a fraction of the trial's training. With ``promote`` a trial that is not among the
    best is paused instead of pruned, and resumed if later arrivals put it among them (packed trials only).
    """

    kind: Literal["asha"] = "asha"
    eta: int = Field(default=3, ge=2)
    start: float = Field(default=1 / 9, gt=0, lt=1)
    promote: bool = False


class HyperbandPruner(Frozen):
    """Several successive-halving brackets."""

    kind: Literal["hyperband"] = "hyperband"
    eta: int = Field(default=3, ge=2)


class MedianPruner(Frozen):
    """Prune trials worse than the median of the finished trials at the same progress."""

    kind: Literal["median"] = "median"
    startup_trials: int = Field(default=4, ge=0)
    start: float = Field(default=0.3, ge=0, lt=1)


class PercentilePruner(Frozen):
    """Keep the best ``percentile`` per cent at the same progress."""

    kind: Literal["percentile"] = "percentile"
    percentile: float = Field(default=25.0, gt=0, le=100)
    startup_trials: int = Field(default=4, ge=0)
    start: float = Field(default=0.3, ge=0, lt=1)


class PatientPruner(Frozen):
    """Prune a trial that has not improved for ``patience`` evaluations."""

    kind: Literal["patient"] = "patient"
    patience: int = Field(default=3, ge=0)
    min_delta: float = Field(default=0.0, ge=0)


class ThresholdPruner(Frozen):
    """Prune trials that leave the given bounds."""

    kind: Literal["threshold"] = "threshold"
    lower: float | None = None
    upper: float | None = None
    start: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _bounded(self) -> ThresholdPruner:
        if self.lower is None and self.upper is None:
            raise ValueError("the threshold pruner needs lower, upper or both")
        return self


class WilcoxonPruner(Frozen):
    """Prune on a signed-rank test against the best trial over the same evaluations."""

    kind: Literal["wilcoxon"] = "wilcoxon"
    p_threshold: float = Field(default=0.1, ge=0, le=1)
    startup_steps: int = Field(default=2, ge=0)


class NoPruner(Frozen):
    """No pruning."""

    kind: Literal["none"] = "none"


Pruner = Annotated[
    AutoPruner
    | HalvingPruner
    | HyperbandPruner
    | MedianPruner
    | PercentilePruner
    | PatientPruner
    | ThresholdPruner
    | WilcoxonPruner
    | NoPruner,
    Field(discriminator="kind"),
    BeforeValidator(_by_kind),
]

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smhd])\s*$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(value: Any) -> Any:
    """Return ``90``, ``"90s"``, ``"30m"``, ``"6h"`` or ``"2d"`` in seconds.

    Raises:
        ValueError: If the text is not a duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if match is None:
        raise ValueError(f"must be a duration such as 90s, 30m, 6h or 2d; found {value!r}")
    return float(match[1]) * _SECONDS[match[2]]


class SearchConfig(Frozen):
    """The search and its budget.

    Attributes:
        preset: Source of the ranges that ``space`` leaves out.
        known_good: Whether the preset's proven configurations run first.
        enqueue: The user's configurations to run first.
        n_trials: Number of trials, confirmations included.
        timeout: No trial starts after this long, time before a resume included; seconds, or text such as ``6h``.
        max_epochs_total: No trial starts once this many epochs are trained, pruned trials included.
        confirm: Part of the budget that re-runs the best configurations with fresh seeds.
        confirm_top: Number of the best configurations to re-run.
    """

    preset: str = "recommended"
    space: Space = Field(default_factory=dict)
    known_good: bool = True
    enqueue: tuple[dict[str, bool | int | float | str], ...] = ()
    sampler: Sampler = AutoSampler()
    pruner: Pruner = AutoPruner()
    n_trials: int = Field(default=20, ge=1, le=1_000_000)
    timeout: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(duration_s)] = None
    max_epochs_total: float | None = Field(default=None, gt=0)
    confirm: float = Field(default=0.2, ge=0, le=0.9)
    confirm_top: int = Field(default=4, ge=1)
