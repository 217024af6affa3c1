"""Learning from what people prefer, with TRL's trainers for DPO, KTO, ORPO and CPO."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from peft import PeftModel

from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.fitting import Fitting
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.reporting import ReportingCallback
from sweeper.training.weights import Adapted

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL warns of its experimental folder, where ORPO and CPO live

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class FittingDPOTrainer(Fitting, DPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


class FittingKTOTrainer(Fitting, KTOTrainer):
    """TRL's trainer; its reference point is estimated over the rows of a part."""


class FittingORPOTrainer(Fitting, ORPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


class FittingCPOTrainer(Fitting, CPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


@dataclass(frozen=True)
class _Parts:
    config: type
    trainer: type


_PARTS = {
    "dpo": _Parts(DPOConfig, FittingDPOTrainer),
    "kto": _Parts(KTOConfig, FittingKTOTrainer),
    "orpo": _Parts(ORPOConfig, FittingORPOTrainer),
    "cpo": _Parts(CPOConfig, FittingCPOTrainer),
}


def build_preference(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer ready to train.

    Raises:
        DataError: If no row is left after truncation.
    """
    parts = _PARTS[spec.technique.kind]
    arguments = parts.config(
        max_length=spec.technique.max_length,
        # TRL silences dropout by default; where the trial searches the adapter's own, it is meant.
        disable_dropout=spec.hyperparameters.lora_dropout == 0,
        **training_arguments(spec, base),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Adapter name 'ref' should not be contained")  # it goes again at once
        trainer = parts.trainer(
            micro_batch,
            model=model,
            args=one_device(arguments),
            train_dataset=Dataset.from_list(read_prepared(spec.train)),
            eval_dataset=Dataset.from_list(read_prepared(spec.validation)),
            processing_class=base.tokenizer,
            callbacks=[callback],
            **_reference(spec, base, model),
        )
    _refer_to_base(model)
    for split, rows in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if len(rows) == 0:
            raise DataError(
                f"no {split} row is left: every prompt fills technique.max_length ({spec.technique.max_length} "
                "tokens); raise it, or shorten the prompts"
            )
    return trainer


def _reference(spec: TrialSpec, base: BaseModel, model: Adapted) -> dict[str, Any]:
    """Return what the trainer compares with: of an adapter its base, without more ado; of a whole model the base."""
    whole = spec.technique.has_reference and not isinstance(model, PeftModel)
    return {"ref_model": base.model} if whole else {}


def _refer_to_base(model: Adapted) -> None:
    """Make the base without its adapter the reference.

    TRL takes an adapter that is there already for one to go on with, and keeps a frozen copy of it as the reference;
    ours is new, so that the base itself is the reference, and the copy only takes memory.
    """
    if isinstance(model, PeftModel) and "ref" in model.peft_config:
        model.delete_adapter("ref")
