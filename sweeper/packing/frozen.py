"""A slot on disk, bit for bit: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeper.config.trial import TrialSpec
from sweeper.errors import StudyStateError
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.slot import Slot
from sweeper.paths import TrialPaths, new_folder, write_json
from sweeper.patience import patiently
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.results import Progress
from sweeper.training.techniques.sft import sft_rows

_TENSORS, _REST = "slot.safetensors", "slot.json"


@patiently
def freeze(slot: Slot) -> None:
    """Write a slot to its trial's folder so that a crash leaves all of it or what was there before.

    What was done of a step under way is undone, and repeated when the slot is thawed.
    """
    slot.restart_step()
    optimizer, best = slot.optimizer.state_dict(), slot.ledger.best
    state = dict(_leaves(optimizer["state"]))
    groups = {
        "adapter": slot.adapter.state(),
        "optimizer": {name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
        "best": best.weights,
        "random": {"generator": slot.random_state},
    }
    tensors = {f"{group} {name}": value for group, of in groups.items() for name, value in of.items()}
    rest = {
        "progress": asdict(slot.progress),
        "evaluated": slot.evaluated,
        "device": slot.generator.device.type,
        "started": slot.ledger.started.isoformat(),
        "micro_batch": slot.micro_batch.rows,
        "names": list(slot.adapter.state()),
        "scaling": slot.adapter.scaling,
        "dropout": slot.adapter.dropout,
        "dtype": str(slot.adapter.parameters[0].dtype).removeprefix("torch."),
        "best": {"value": best.value, "step": best.step, "metrics": best.metrics},
        "optimizer": {name: value for name, value in state.items() if name not in groups["optimizer"]},
        "groups": optimizer["param_groups"],
        "scheduler": slot.scheduler.state_dict(),
    }
    with new_folder(slot.ledger.paths.frozen) as folder:
        save_file({name: value.detach().cpu().clone() for name, value in tensors.items()}, folder / _TENSORS)
        write_json(folder / _REST, rest)


def thaw(spec: TrialSpec, base: BaseModel) -> Slot:
    """Return the slot that ``freeze`` wrote for a trial: it goes on as if it had never stopped.

    Raises:
        StudyStateError: If what is on disk is damaged.
    """
    folder = TrialPaths(spec.folder).frozen
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
        rows = sft_rows(spec, base, model)
    try:
        rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
        if rest["device"] != torch.device(base.device).type:
            raise ValueError(f"it was frozen on {rest['device']} and cannot go on on {base.device}")
        tensors = _read(folder / _TENSORS)
        adapter = SlotAdapter(
            {name: tensors["adapter"][name] for name in rest["names"]},
            rest["scaling"],
            rest["dropout"],
            device=base.device,
            dtype=getattr(torch, rest["dtype"]),
            compute=base.dtype,
        )
        slot = Slot(spec, base, adapter, rows, rest["micro_batch"])
        slot.progress = Progress(**rest["progress"])
        slot.evaluated = rest["evaluated"]
        slot.ledger.started = datetime.fromisoformat(rest["started"])
        best = slot.ledger.best
        best.value, best.step, best.metrics = (rest["best"][name] for name in ("value", "step", "metrics"))
        best.weights = tensors["best"]
        _restore(slot.optimizer, {**tensors["optimizer"], **rest["optimizer"]}, rest["groups"])
        slot.scheduler.load_state_dict(rest["scheduler"])
        slot.random_state = tensors["random"]["generator"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise StudyStateError(
            f"the trial frozen in {folder} cannot go on ({type(error).__name__}: {error}); delete that folder, and "
            "`sweeper resume` begins the trial again"
        ) from error
    return slot


def _read(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of a file by group and name."""
    groups: dict[str, dict[str, torch.Tensor]] = {"adapter": {}, "optimizer": {}, "best": {}, "random": {}}
    for full, tensor in load_file(path).items():
        group, _, name = full.partition(" ")
        groups[group][name] = tensor
    return groups


def _leaves(state: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield what an optimizer keeps, each with its path as JSON; some keep mappings within mappings."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield json.dumps((*path, key)), value


def _restore(optimizer: torch.optim.Optimizer, leaves: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
    """Give an optimizer back its state; torch alone would round what is kept in another type than the weights."""
    state: dict[int, dict[str, Any]] = {}
    for path, value in leaves.items():
        index, *between, last = json.loads(path)
        place = state.setdefault(index, {})
        for key in between:
            place = place.setdefault(key, {})
        place[last] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, of in state.items():
        loaded = optimizer.state[parameters[index]]
        for name, value in of.items():
            if isinstance(value, torch.Tensor) and value.dtype is not loaded[name].dtype:
                loaded[name] = value.to(loaded[name].device)
