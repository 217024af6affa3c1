"""Reasons why a study's trials cannot be packed and run one at a time; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeper.config.adapter import AnyAdapter, LowRank, QLoRA
from sweeper.config.backend import TRL
from sweeper.config.parameters import PARAMETERS
from sweeper.config.space import ADAPTER, Choice, Fixed, Range, bare, ranges_of
from sweeper.config.study import StudyConfig
from sweeper.config.trl_fields import ROW_FIELDS

_FIELDS = {"optim", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", *ROW_FIELDS}
"""TRL fields that slots implement."""

_OPTIMIZERS = ("adamw", "adam_", "adafactor", "adagrad", "ademamix", "lion", "paged_", "rmsprop", "sgd", "grokadamw")
"""Name prefixes of optimizers that need nothing but parameters; others need the whole model."""


def obstacle_in_study(config: StudyConfig, space: Mapping[str, Range]) -> str | None:
    """Return why a study cannot be packed, as far as its file tells; None if it can."""
    if config.technique.kind != "sft":
        return f"{config.technique.kind} uses TRL's own trainer, which trains one model at a time"
    if not isinstance(config.backend, TRL):
        return f"with the backend {config.backend.kind} each trial has its own processes"
    if not config.backend.is_plain:
        return "liger and compile change the base model's passes, which trials would share"
    in_adapter = next(filter(None, map(_obstacle_in_adapter, config.variants(space))), None)
    if in_adapter is not None:
        return in_adapter
    if len(config.bases) > 1:
        return f"they use different base models ({', '.join(config.bases)}), and a pass goes through one"
    if "training_time" in config.evaluation.objectives:
        return "training_time is an objective, which is only a trial's own if nothing trains beside it"
    options = frozenset[str]().union(*(one.adapter.options() for one in config.adapters.values()))
    names = {bare(name) for name in space if name != ADAPTER}
    foreign = sorted(names - {*PARAMETERS, *_FIELDS, *options})
    if foreign:
        return f"{', '.join(foreign)} belongs to TRL's trainer, which trains one model at a time"
    optimizers = [value for range_ in ranges_of(space, "optim") for value in _values(range_)]
    wanting = [value for value in optimizers if not str(value).startswith(_OPTIMIZERS)]
    if wanting:
        return f"optim {', '.join(map(str, wanting))} needs the whole model"
    return None


def _obstacle_in_adapter(adapter: AnyAdapter) -> str | None:
    """Return why trials of an adapter cannot share a pass; a slot is two factors a layer on shared weights."""
    if not isinstance(adapter, LowRank):
        return f"the adapter {adapter.kind} is not LoRA, and only LoRA's factors can share a pass"
    if isinstance(adapter, QLoRA) and adapter.quantization == "int8":
        return "int8 layers look for outliers across all rows of a batch, so trials would affect one another"
    if adapter.dora:
        return "dora divides by the norm of the whole weights, adapter included, which a shared pass never forms"
    if adapter.changes_base:
        return f"init {adapter.init} changes the base's weights, which all trials share"
    if adapter.init in ("loftq", "eva"):
        return f"init {adapter.init} is computed before training, on the base alone"
    if adapter.raises_b:
        return "lora_plus gives A and B different learning rates, and a slot has one"
    return None


def _values(range_: Range) -> Sequence[object]:
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else ()
