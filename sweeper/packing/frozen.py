"""Checkpoints of a packed slot, bit for bit: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime

import torch

from sweeper.config.trial import TrialSpec
from sweeper.files.atomic import new_folder, write_json
from sweeper.files.checksums import owner, seal
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.slot import Slot
from sweeper.paths import TrialPaths
from sweeper.retry import retried
from sweeper.training.adapters import peft_config
from sweeper.training.base_model import BaseModel
from sweeper.training.checkpoint import has_checkpoint, load_groups, named_faults, save_groups
from sweeper.training.optimizer import optimizer_state, restore_optimizer
from sweeper.training.techniques.sft import sft_rows
from sweeper.training.trial_output import TrialProgress

PACKED = "packed"
"""The writer that the JSON names."""

_TENSORS, _REST = "slot.safetensors", "slot.json"


def is_slot(paths: TrialPaths) -> bool:
    """Return whether a trial's checkpoint is a slot's: ``thaw`` cannot read a trainer's."""
    return (paths.frozen / _REST).is_file() or not has_checkpoint(paths)  # damaged: ``thaw`` says so


@retried
def freeze(slot: Slot) -> None:
    """Write a slot to its trial's folder; a crash leaves either the whole checkpoint or the previous one.

    A step under way is undone, and repeated when the slot is thawed.
    """
    slot.restart_step()
    best = slot.output.best
    state = optimizer_state(slot.optimizer)
    groups = {
        "adapter": slot.adapter.state(),
        "optimizer": {name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
        "best": best.weights,
        "random": {"generator": slot.random_state},
    }
    rest = {
        "written_by": PACKED,
        "progress": asdict(slot.progress),
        "evaluated": slot.evaluated,
        "device": slot.generator.device.type,
        "started": slot.output.started.isoformat(),
        "micro_batch": slot.micro_batch.rows,
        "names": list(slot.adapter.state()),
        "scaling": slot.adapter.scaling,
        "dropout": slot.adapter.dropout,
        "dtype": str(slot.adapter.parameters[0].dtype).removeprefix("torch."),
        "best": best.record(),
        "optimizer": {name: value for name, value in state.items() if name not in groups["optimizer"]},
        "groups": slot.optimizer.state_dict()["param_groups"],
        "scheduler": slot.scheduler.state_dict(),
    }
    with new_folder(slot.output.paths.frozen) as folder:
        save_groups(groups, folder / _TENSORS)
        write_json(folder / _REST, rest)
        seal(folder, owner(slot.spec.study, slot.spec.number))


def thaw(spec: TrialSpec, base: BaseModel) -> Slot:
    """Return the slot that ``freeze`` wrote for a trial, which continues as if it had never stopped.

    Raises:
        StudyStateError: If the checkpoint is damaged.
    """
    folder = TrialPaths(spec.folder).frozen
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
        rows = sft_rows(spec, base, model)
    with named_faults(folder):
        rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
        if rest["device"] != torch.device(base.device).type:
            raise ValueError(f"it was frozen on {rest['device']} and cannot resume on {base.device}")
        tensors = load_groups(folder / _TENSORS, ("adapter", "optimizer", "best", "random"))
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
        slot.output.started = datetime.fromisoformat(rest["started"])
        slot.output.best.restore(rest["best"], tensors["best"])
        restore_optimizer(slot.optimizer, {**tensors["optimizer"], **rest["optimizer"]}, rest["groups"])
        slot.scheduler.load_state_dict(rest["scheduler"])
        slot.random_state = tensors["random"]["generator"]
    return slot
