"""What in a study cannot be packed, and why: its trials run one at a time. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeper.config.adapter import QLoRA
from sweeper.config.backend import TRL
from sweeper.config.parameters import PARAMETERS
from sweeper.config.space import Choice, Fixed, Range
from sweeper.config.study import StudyConfig
from sweeper.config.trl_fields import ROW_FIELDS

_FIELDS = {"optim", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", *ROW_FIELDS}
"""TRL fields whose meaning a slot carries out."""

_OPTIMIZERS = ("adamw", "adam_", "adafactor", "adagrad", "ademamix", "lion", "paged_", "rmsprop", "sgd", "grokadamw")
"""Beginnings of the names of optimizers that need nothing but parameters; others want the whole model."""


def obstacle_in_study(config: StudyConfig, space: Mapping[str, Range]) -> str | None:
    """Return why a study cannot be packed as far as its file tells, or None where it can."""
    if not isinstance(config.backend, TRL):
        return f"with the backend {config.backend.kind} each trial has processes of its own"
    if not config.backend.is_plain:
        return "liger and compile change the base model's own passes, which trials would share"
    if isinstance(config.adapter, QLoRA) and config.adapter.quantization == "int8":
        return "int8 layers look for outliers across all rows of a batch, so trials would change one another"
    if "training_time" in config.evaluation.objectives:
        return "training_time is an objective, and is only a trial's own where nothing trains beside it"
    foreign = sorted(name for name in space if name not in PARAMETERS and name not in _FIELDS)
    if foreign:
        return f"{', '.join(foreign)} belongs to TRL's trainer, which trains one model at a time"
    wanting = [value for value in _values(space.get("optim")) if not str(value).startswith(_OPTIMIZERS)]
    if wanting:
        return f"optim {', '.join(map(str, wanting))} wants the whole model for itself"
    return None


def _values(range_: Range | None) -> Sequence[object]:
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else ()
