"""Trainers by technique: TRL's own, in steps of as many parts as memory asks for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback

from sweeper.config.trial import TrialSpec
from sweeper.training.adapters import cast_adapter, initialise
from sweeper.training.optimizer import give_lora_plus
from sweeper.training.weights import Adapted

if TYPE_CHECKING:
    from sweeper.training.base_model import BaseModel
    from sweeper.training.micro_batch import MicroBatch
    from sweeper.training.reporting import ReportingCallback


def build_trainer(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer of the trial's technique, ready to train.

    It has what transformers' ``Trainer`` has, and ``tokens_seen``: training tokens so far, padding left out.

    Raises:
        DataError: If nothing that can be learned from is left after truncation.
    """
    file, function = spec.technique.trainer.split(":")  # imported only now: each of TRL's trainers takes a while
    trainer = getattr(import_module(f"{__name__}.{file}"), function)(spec, base, model, micro_batch, callback)
    if isinstance(model, PeftModel) and "ref" in model.peft_config:
        model.delete_adapter("ref")  # TRL's copy, to go on from one; ours is new, so its reference is the base itself
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    cast_adapter(base, model)
    initialise(spec.adapter, model, spec.model_folder, trainer.train_dataset, getattr(trainer, "collate", None))
    give_lora_plus(trainer, spec.adapter)
    base.backend.prepare(trainer)
    return trainer
