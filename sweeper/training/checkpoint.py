"""A trial that runs through a trainer of TRL's, on disk: tensors as safetensors, everything else as JSON.

The folder is the same as a frozen slot's (``TrialPaths.frozen``); its JSON says which of the two wrote it. Nothing in
it is a pickle, so transformers' own files for the optimizer, the schedule and the random numbers are not used;
``training/resumable.py`` says where in transformers' own resuming they take the place of those.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeper.errors import StudyStateError
from sweeper.files.atomic import new_folder, read_json, write_json
from sweeper.files.checksums import owner, seal
from sweeper.paths import TrialPaths
from sweeper.retry import retried
from sweeper.training import optimizer_state
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.trial_output import TrialOutput, TrialProgress
from sweeper.training.weights import put_back, trained_weights

if TYPE_CHECKING:
    from sweeper.training.resumable_trainer import ResumableTrainer

TRAINER = "trainer"
"""What the JSON names as its writer."""

_TENSORS, _REST, _STATE = "checkpoint.safetensors", "checkpoint.json", "trainer_state.json"
_GROUPS = ("weights", "optimizer", "best", "random")


def is_kept(paths: TrialPaths) -> bool:
    """Tell whether a trial can go on from what its trainer wrote; a frozen slot is nothing that a trainer can read."""
    try:
        return bool(read_json(paths.frozen / _REST)["written_by"] == TRAINER)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        return True  # damaged: whoever reads it says so


def progress_of(paths: TrialPaths) -> TrialProgress:
    """Return how far a trial had come that its trainer wrote, without reading its weights.

    Raises:
        StudyStateError: If what is on disk is damaged.
    """
    with named_faults(paths.frozen):
        return TrialProgress(**read_json(paths.frozen / _REST)["progress"])


@retried
def write(trainer: ResumableTrainer, ledger: TrialOutput, progress: TrialProgress, evaluated: int) -> None:
    """Write a trial between two steps, so that a crash leaves all of it or what was there before.

    Args:
        trainer: What trains it.
        ledger: Its best evaluation, and its folder.
        progress: How far it has come.
        evaluated: The last step whose evaluation was judged.

    Raises:
        OSError: If the disk does not take it.
        TypeError: If something of the optimizer's or the schedule's is neither a tensor nor JSON.
    """
    optimizer, best, numbers = trainer.plain_optimizer, ledger.best, trainer.random_numbers
    kept = optimizer_state.leaves(optimizer)
    groups = {
        "weights": trained_weights(trainer.model),
        "optimizer": {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)},
        "best": best.weights,
        "random": numbers.tensors,
    }
    tensors = {f"{group} {name}": value for group, of in groups.items() for name, value in of.items()}
    rest = {
        "written_by": TRAINER,
        "progress": asdict(progress),
        "evaluated": evaluated,
        "device": trainer.args.device.type,
        "started": ledger.started.isoformat(),
        "begun_with": trainer.begun_with,
        "best": {"value": best.value, "step": best.step, "metrics": best.metrics},
        "optimizer": {name: value for name, value in kept.items() if name not in groups["optimizer"]},
        "groups": optimizer.state_dict()["param_groups"],
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": None if trainer.accelerator.scaler is None else trainer.accelerator.scaler.state_dict(),
        "random": {"python": numbers.python, "numpy": numbers.numpy},
        "own": trainer.own_state(),
    }
    state = {**asdict(trainer.state), "log_history": [], "stateful_callbacks": {}}
    with new_folder(ledger.paths.frozen) as folder:
        save_file(
            {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, folder / _TENSORS
        )
        write_json(folder / _REST, rest)
        write_json(folder / _STATE, state)
        seal(folder, owner(ledger.spec.study, ledger.spec.number))


@dataclass
class Checkpoint:
    """What ``write`` wrote, read.

    Attributes:
        folder: Where it is.
        tensors: By group and name.
        rest: Everything else.
    """

    folder: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    rest: dict[str, Any]

    @classmethod
    def read(cls, paths: TrialPaths, device: str) -> Checkpoint:
        """Return a trial's checkpoint.

        Raises:
            StudyStateError: If what is on disk is damaged, or is from another kind of device.
        """
        with named_faults(paths.frozen):
            rest = read_json(paths.frozen / _REST)
            if rest["device"] != torch.device(device).type:
                raise ValueError(f"it was written on {rest['device']} and cannot go on on {device}")
            tensors: dict[str, dict[str, torch.Tensor]] = {group: {} for group in _GROUPS}
            for full, tensor in load_file(paths.frozen / _TENSORS).items():
                group, _, name = full.partition(" ")
                tensors[group][name] = tensor
            read_json(paths.frozen / _STATE)
            return cls(paths.frozen, tensors, rest)

    @property
    def evaluated(self) -> int:
        """The last step whose evaluation was judged."""
        return int(self.rest["evaluated"])

    @property
    def progress(self) -> TrialProgress:
        """How far the trial had come."""
        return TrialProgress(**self.rest["progress"])

    def put_into(self, ledger: TrialOutput) -> None:
        """Give a ledger the best evaluation so far, and the time the trial began."""
        with named_faults(self.folder):
            best, kept = ledger.best, self.rest["best"]
            best.value, best.step, best.metrics = kept["value"], kept["step"], kept["metrics"]
            best.weights = self.tensors["best"]
            ledger.started = datetime.fromisoformat(self.rest["started"])

    def put_weights_into(self, model: torch.nn.Module) -> None:
        """Give what is trained the values that it had."""
        with named_faults(self.folder):
            put_back(model, self.tensors["weights"])

    def put_optimizer_into(self, trainer: ResumableTrainer) -> None:
        """Give a trainer's optimizer, schedule, and whatever is its own, their states back."""
        with named_faults(self.folder):
            kept = {**self.tensors["optimizer"], **self.rest["optimizer"]}
            optimizer_state.restore(trainer.plain_optimizer, kept, self.rest["groups"])
            trainer.lr_scheduler.load_state_dict(self.rest["scheduler"])
            trainer.restore_own_state(self.rest["own"])

    def put_scaler_into(self, trainer: ResumableTrainer) -> None:
        """Give the scaler of float16's gradients its state back, where there is one."""
        if trainer.accelerator.scaler is not None:
            with named_faults(self.folder):
                trainer.accelerator.scaler.load_state_dict(self.rest["scaler"])

    def random_numbers(self) -> RandomNumbers:
        """Return the state of all random numbers."""
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
        """Return the state that they are in."""
        return cls(random.getstate(), _numpy_state(), _torch_states(device))

    def put_back(self, device: torch.device) -> None:
        """Let them go on from here."""
        random.setstate(self.python)
        state = self.numpy["state"]
        keys = np.array(state["key"], dtype=np.uint32)
        np.random.set_state({**self.numpy, "state": {**state, "key": keys}})
        torch.set_rng_state(self.tensors["host"])
        if "device" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["device"], device)


def _numpy_state() -> dict[str, Any]:
    found: Any = np.random.get_state(legacy=False)
    state = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found["state"].items()}
    return {**found, "state": state}


def _torch_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"host": torch.get_rng_state()}
    return states if device.type == "cpu" else {**states, "device": torch.cuda.get_rng_state(device)}


@contextmanager
def named_faults(folder: Path) -> Iterator[None]:
    """Say of what is wrong with a frozen trial's folder where it is and what to do.

    Raises:
        StudyStateError: In place of whatever the block raises over damaged files.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise StudyStateError(
            f"the trial frozen in {folder} cannot go on ({type(error).__name__}: {error}); delete that folder, and "
            "`sweeper resume` begins the trial again"
        ) from error


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return a SHA-256 of weights by name."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(name.encode() + value.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
