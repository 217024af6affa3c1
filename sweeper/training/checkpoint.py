"""Checkpoints of a trial in a TRL trainer: tensors as safetensors, everything else as JSON.

They share their folder (``TrialPaths.frozen``) with the packed slots'; the JSON names its writer. There are no pickles,
so transformers' own files for the optimizer, the schedule and the random numbers are not used; see
``resumable_trainer`` for the hooks that replace them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeper.errors import StudyStateError
from sweeper.files.atomic import new_folder, read_json, write_json
from sweeper.files.checksums import owner, seal
from sweeper.paths import TrialPaths
from sweeper.retry import retried
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.optimizer import optimizer_state, restore_optimizer
from sweeper.training.trial_output import TrialOutput, TrialProgress
from sweeper.training.weights import put_back, trained_weights

TRAINER = "trainer"
"""The writer that the JSON names."""

_TENSORS, _REST, _STATE = "checkpoint.safetensors", "checkpoint.json", "trainer_state.json"
_GROUPS = ("weights", "optimizer", "best", "random")


def has_checkpoint(paths: TrialPaths) -> bool:
    """Return whether a trainer wrote a checkpoint of the trial; it cannot read a packed slot's."""
    try:
        return bool(read_json(paths.frozen / _REST)["written_by"] == TRAINER)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        return True  # damaged: reading it raises


def progress_of(paths: TrialPaths) -> TrialProgress:
    """Return the progress in a trial's checkpoint, without reading its weights.

    Raises:
        StudyStateError: If the checkpoint is damaged.
    """
    with named_faults(paths.frozen):
        return TrialProgress(**read_json(paths.frozen / _REST)["progress"])


@retried
def write(trainer: Any, output: TrialOutput, progress: TrialProgress, evaluated: int) -> None:
    """Write a trial of a ``ResumableTrainer`` between two steps; a crash leaves this checkpoint or the previous one.

    Raises:
        OSError: If it cannot be written.
        TypeError: If some state of the optimizer or the schedule is neither a tensor nor JSON.
    """
    optimizer, best, numbers = trainer.plain_optimizer, output.best, trainer.random_numbers
    kept = optimizer_state(optimizer)
    groups = {
        "weights": trained_weights(trainer.model),
        "optimizer": {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)},
        "best": best.weights,
        "random": numbers.tensors,
    }
    rest = {
        "written_by": TRAINER,
        "progress": asdict(progress),
        "evaluated": evaluated,
        "device": trainer.args.device.type,
        "started": output.started.isoformat(),
        "begun_with": trainer.initial_digest,
        "best": best.record(),
        "optimizer": {name: value for name, value in kept.items() if name not in groups["optimizer"]},
        "groups": optimizer.state_dict()["param_groups"],
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": None if trainer.accelerator.scaler is None else trainer.accelerator.scaler.state_dict(),
        "random": {"python": numbers.python, "numpy": numbers.numpy},
        "own": trainer.own_state(),
    }
    state = {**asdict(trainer.state), "log_history": [], "stateful_callbacks": {}}
    with new_folder(output.paths.frozen) as folder:
        save_groups(groups, folder / _TENSORS)
        write_json(folder / _REST, rest)
        write_json(folder / _STATE, state)
        seal(folder, owner(output.spec.study, output.spec.number))


@dataclass
class Checkpoint:
    """A checkpoint in memory: the tensors by group and name, and ``rest``, the JSON."""

    folder: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    rest: dict[str, Any]

    @classmethod
    def read(cls, paths: TrialPaths, device: str) -> Checkpoint:
        """Return a trial's checkpoint.

        Raises:
            StudyStateError: If it is damaged, or is from another kind of device.
        """
        with named_faults(paths.frozen):
            rest = read_json(paths.frozen / _REST)
            if rest["device"] != torch.device(device).type:
                raise ValueError(f"it was written on {rest['device']} and cannot resume on {device}")
            tensors = load_groups(paths.frozen / _TENSORS, _GROUPS)
            read_json(paths.frozen / _STATE)
            return cls(paths.frozen, tensors, rest)

    @property
    def evaluated(self) -> int:
        """The last step whose evaluation was reported."""
        return int(self.rest["evaluated"])

    @property
    def progress(self) -> TrialProgress:
        """The progress of the trial."""
        return TrialProgress(**self.rest["progress"])

    def put_into(self, output: TrialOutput) -> None:
        """Restore the best evaluation and the start time."""
        with named_faults(self.folder):
            output.best.restore(self.rest["best"], self.tensors["best"])
            output.started = datetime.fromisoformat(self.rest["started"])

    def put_weights_into(self, model: torch.nn.Module) -> None:
        """Restore the trained weights."""
        with named_faults(self.folder):
            put_back(model, self.tensors["weights"])

    def put_optimizer_into(self, trainer: Any) -> None:
        """Restore a trainer's optimizer, schedule and own state."""
        with named_faults(self.folder):
            kept = {**self.tensors["optimizer"], **self.rest["optimizer"]}
            restore_optimizer(trainer.plain_optimizer, kept, self.rest["groups"])
            trainer.lr_scheduler.load_state_dict(self.rest["scheduler"])
            trainer.restore_own_state(self.rest["own"])

    def put_scaler_into(self, trainer: Any) -> None:
        """Restore the gradient scaler of float16, if there is one."""
        if trainer.accelerator.scaler is not None:
            with named_faults(self.folder):
                trainer.accelerator.scaler.load_state_dict(self.rest["scaler"])

    def random_numbers(self) -> RandomNumbers:
        """Return the state of all random generators."""
        with named_faults(self.folder):
            kept = self.rest["random"]
            version, numbers, gauss = kept["python"]
            return RandomNumbers((version, tuple(numbers), gauss), kept["numpy"], self.tensors["random"])


@dataclass(frozen=True)
class RandomNumbers:
    """The state of every generator that training may draw from: Python's, NumPy's, torch's on host and device."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def now(cls, device: torch.device) -> RandomNumbers:
        """Return their present state."""
        found: Any = np.random.get_state(legacy=False)
        state = {n: each.tolist() if isinstance(each, np.ndarray) else each for n, each in found["state"].items()}
        tensors = {"host": torch.get_rng_state()}
        if device.type != "cpu":
            tensors["device"] = torch.cuda.get_rng_state(device)
        return cls(random.getstate(), {**found, "state": state}, tensors)

    def put_back(self, device: torch.device) -> None:
        """Restore this state."""
        random.setstate(self.python)
        state = self.numpy["state"]
        keys = np.array(state["key"], dtype=np.uint32)
        np.random.set_state({**self.numpy, "state": {**state, "key": keys}})
        torch.set_rng_state(self.tensors["host"])
        if "device" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["device"], device)


@contextmanager
def named_faults(folder: Path) -> Iterator[None]:
    """Turn an error over a damaged checkpoint into one that names the folder and the way out.

    Raises:
        StudyStateError: In place of such an error.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise StudyStateError(
            f"the trial cannot resume from the checkpoint in {folder} ({type(error).__name__}: {error}); delete that "
            "folder, and `sweeper resume` restarts the trial"
        ) from error


def save_groups(groups: Mapping[str, Mapping[str, torch.Tensor]], path: Path) -> None:
    """Write tensors by group and name as safetensors."""
    tensors = {f"{group} {name}": value for group, of in groups.items() for name, value in of.items()}
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)


def load_groups(path: Path, groups: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Return what ``save_groups`` wrote, groups without a tensor included."""
    found: dict[str, dict[str, torch.Tensor]] = {group: {} for group in groups}
    for full, tensor in load_file(path).items():
        group, _, name = full.partition(" ")
        found[group][name] = tensor
    return found


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return a SHA-256 of weights by name."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(name.encode() + value.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
