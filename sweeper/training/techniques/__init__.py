"""One file a technique: the TRL trainer that does the training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback

from sweeper.config.trial import TrialSpec
from sweeper.training.adapters import cast_adapter
from sweeper.training.lora_init import initialise
from sweeper.training.optimizer import give_lora_plus
from sweeper.training.weights import Adapted

if TYPE_CHECKING:
    from sweeper.training.base_model import BaseModel
    from sweeper.training.micro_batch import MicroBatch
    from sweeper.training.reporting import ReportingCallback

BUILDERS = {
    "sft": "sft:build_sft",
    "dpo": "preferences:build_preference",
    "kto": "preferences:build_preference",
    "orpo": "preferences:build_preference",
    "cpo": "preferences:build_preference",
    "reward": "reward:build_reward",
    "grpo": "policy:build_policy",
    "rloo": "policy:build_policy",
}
"""Where each technique's trainer is built: the file in this folder and the function in it. Imported when asked for,
because each of TRL's trainers takes a while to import."""


def build_trainer(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer of the trial's technique, ready to train.

    It has what transformers' ``Trainer`` has, and ``tokens_seen``: training tokens so far, padding left out.

    Raises:
        DataError: If nothing that can be learned from is left after truncation.
    """
    file, function = BUILDERS[spec.technique.kind].split(":")
    trainer = getattr(import_module(f"{__name__}.{file}"), function)(spec, base, model, micro_batch, callback)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    cast_adapter(base, model)
    initialise(spec.adapter, model, spec.model_folder, trainer.train_dataset, getattr(trainer, "collate", None))
    give_lora_plus(trainer, spec.adapter)
    base.backend.prepare(trainer)
    return trainer
