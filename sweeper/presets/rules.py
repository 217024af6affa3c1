"""Rules that fit a preset's ranges to data and model, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sweeper.config.parameters import PARAMETERS, steps
from sweeper.config.space import Choice, Fixed, Range, Space, as_range, ranges_of

FEWEST_STEPS = 20
"""The fewest optimizer steps that allow a configuration to be judged."""

ENOUGH_STEPS = 100
"""The optimizer steps that ``recommended`` gives a trial by choosing its epochs."""

_EPOCHS = (1, 2, 3, 5, 10)  # 1 to 3 as sourced; more only if the data are too few for 3 to train anything
_WARMUP_RATIO = (0.0, 0.1)


def tinker_learning_rate(hidden_size: int, architecture: str | None) -> float:
    """Return a LoRA learning rate from the model's width.

    ``5e-5 * 10 * (2000 / hidden_size) ** p``, with p 0.0775 for Qwen and 0.781 for Llama and all others
    (tinker_cookbook.hyperparam_utils.get_lr; fitted there on models of 1B and more).
    """
    exponent = 0.0775 if "qwen" in (architecture or "").lower() else 0.781
    return float(5e-5 * 10 * (2000 / hidden_size) ** exponent)


def fixed_epochs(space: Space, train_rows: int) -> tuple[Range, str]:
    """Return the smallest number of epochs that gives about a hundred steps at the middle batch size, and why."""
    sizes = corner_values(space, "batch_size")
    batch = max(1, round(math.sqrt(min(sizes) * max(sizes))))  # the geometric middle
    epochs = next((n for n in _EPOCHS if steps(train_rows, batch, n) >= ENOUGH_STEPS), _EPOCHS[-1])
    count = steps(train_rows, batch, epochs)
    return Fixed(value=epochs), (
        f"epochs fixed at {epochs}: {train_rows:,} rows give {count:,} steps at batch size {batch}; epochs are not "
        "searched, because at equal steps pruning favours short schedules"
    )


def enough_steps(space: Space, train_rows: int) -> tuple[Range, str] | None:
    """Return the batch sizes that leave enough optimizer steps, and why; None if all do."""
    sizes = space.get("batch_size")
    if not isinstance(sizes, Choice):
        return None
    epochs = max(corner_values(space, "epochs"))
    numbers = [int(size) for size in sizes.choice if isinstance(size, int | float)]
    kept = [size for size in numbers if steps(train_rows, size, epochs) >= FEWEST_STEPS] or [min(numbers)]
    dropped = [size for size in numbers if size not in kept]
    if not dropped:
        return None
    return sizes.model_copy(update={"choice": tuple(kept)}), (
        f"batch size {_listed(dropped)} left out: {train_rows:,} rows would give fewer than {FEWEST_STEPS} steps"
    )


def allowed_ranks(space: Space, max_rank: int) -> tuple[Range, str] | None:
    """Return the ranks that the model allows, and why; None if it allows all."""
    ranks = space.get("lora_rank")
    if not isinstance(ranks, Choice):
        return None
    kept = tuple(rank for rank in ranks.choice if isinstance(rank, int) and rank <= max_rank)
    if len(kept) == len(ranks.choice):
        return None
    reason = f"ranks above {max_rank} left out: the smallest adapted layer of this model is {max_rank} wide"
    return ranks.model_copy(update={"choice": kept or (max_rank,)}), reason


def shortest_run(space: Space, train_rows: int) -> tuple[int, int, float]:
    """Return the fewest optimizer steps of any configuration, with its batch size and epochs."""
    batch = int(max(corner_values(space, "batch_size")))
    epochs = min(corner_values(space, "epochs"))
    return steps(train_rows, batch, epochs), batch, epochs


def warmup_beyond(space: Space, train_rows: int) -> str | None:
    """Return a warning if the warmup can be as long as a whole run, else None."""
    if "warmup_steps" not in space:
        return None
    longest = max(corner_values(space, "warmup_steps"), default=0)
    shortest, batch, epochs = shortest_run(space, train_rows)
    if longest < shortest:
        return None
    return (
        f"warmup_steps reaches {longest:g}, but batch size {batch} and epochs {epochs:g} give {shortest:,} steps, so "
        "the learning rate may never reach its peak"
    )


def ratio_instead(space: Space) -> Space:
    """Return the space with warmup as a fraction of the run instead of a number of steps."""
    low, high = _WARMUP_RATIO
    rest = {name: spec for name, spec in space.items() if name != "warmup_steps"}
    return {**rest, "warmup_ratio": as_range({"low": low, "high": high})}


def corner_values(space: Mapping[str, Range], name: str) -> tuple[Any, ...]:
    """Return the extreme numbers of a parameter over all alternatives; its default if the space leaves it out."""
    corners = [corner for range_ in ranges_of(space, name) for corner in range_.corners()]
    numbers = tuple(v for v in corners if isinstance(v, int | float) and not isinstance(v, bool))
    return numbers or (PARAMETERS[name].default,)


def _listed(numbers: list[int]) -> str:
    return " and ".join(filter(None, (", ".join(map(str, numbers[:-1])), str(numbers[-1]))))
