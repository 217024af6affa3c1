"""A slot on disk, bit for bit: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sweeper.config.trial import TrialSpec
from sweeper.files.atomic import new_folder, write_json
from sweeper.files.checksums import owner, seal
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.slot import Slot
from sweeper.paths import TrialPaths
from sweeper.retry import retried
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.checkpoint import is_kept, named_faults
from sweeper.training.optimizer_state import leaves, restore
from sweeper.training.techniques.sft import sft_rows
from sweeper.training.trial_output import TrialProgress

PACKED = "packed"
"""What the JSON names as its writer."""

_TENSORS, _REST = "slot.safetensors", "slot.json"


def is_slot(paths: TrialPaths) -> bool:
    """Tell whether a trial was frozen as a slot: ``thaw`` can read nothing that a trainer of TRL's wrote."""
    return (paths.frozen / _REST).is_file() or not is_kept(paths)  # damaged: ``thaw`` says so


@retried
def freeze(slot: Slot) -> None:
    """Write a slot to its trial's folder so that a crash leaves all of it or what was there before.

    What was done of a step under way is undone, and repeated when the slot is thawed.
    """
    slot.restart_step()
    best = slot.ledger.best
    state = leaves(slot.optimizer)
    groups = {
        "adapter": slot.adapter.state(),
        "optimizer": {name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
        "best": best.weights,
        "random": {"generator": slot.random_state},
    }
    tensors = {f"{group} {name}": value for group, of in groups.items() for name, value in of.items()}
    rest = {
        "written_by": PACKED,
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
        "groups": slot.optimizer.state_dict()["param_groups"],
        "scheduler": slot.scheduler.state_dict(),
    }
    with new_folder(slot.ledger.paths.frozen) as folder:
        save_file({name: value.detach().cpu().clone() for name, value in tensors.items()}, folder / _TENSORS)
        write_json(folder / _REST, rest)
        seal(folder, owner(slot.spec.study, slot.spec.number))


def thaw(spec: TrialSpec, base: BaseModel) -> Slot:
    """Return the slot that ``freeze`` wrote for a trial: it goes on as if it had never stopped.

    Raises:
        StudyStateError: If what is on disk is damaged.
    """
    folder = TrialPaths(spec.folder).frozen
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
        rows = sft_rows(spec, base, model)
    with named_faults(folder):
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
        slot.progress = TrialProgress(**rest["progress"])
        slot.evaluated = rest["evaluated"]
        slot.ledger.started = datetime.fromisoformat(rest["started"])
        best = slot.ledger.best
        best.value, best.step, best.metrics = (rest["best"][name] for name in ("value", "step", "metrics"))
        best.weights = tensors["best"]
        restore(slot.optimizer, {**tensors["optimizer"], **rest["optimizer"]}, rest["groups"])
        slot.scheduler.load_state_dict(rest["scheduler"])
        slot.random_state = tensors["random"]["generator"]
    return slot


def _read(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of a file by group and name."""
    groups: dict[str, dict[str, torch.Tensor]] = {"adapter": {}, "optimizer": {}, "best": {}, "random": {}}
    for full, tensor in load_file(path).items():
        group, _, name = full.partition(" ")
        groups[group][name] = tensor
    return groups
