"""Learning from answers that people ranked, with TRL's trainers for DPO, KTO, ORPO, CPO and reward models."""

from __future__ import annotations

import os
from typing import Any

from datasets import Dataset
from peft import PeftModel

from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.micro_batched_trainer import MicroBatchedTrainer
from sweeper.training.reporting import ReportingCallback
from sweeper.training.weights import Adapted

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL warns of its experimental folder, where ORPO and CPO live

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

TRAINERS: dict[str, tuple[type, type]] = {
    "dpo": (DPOConfig, type("MicroBatchedDPOTrainer", (MicroBatchedTrainer, DPOTrainer), {})),
    "kto": (KTOConfig, type("MicroBatchedKTOTrainer", (MicroBatchedTrainer, KTOTrainer), {})),
    "orpo": (ORPOConfig, type("MicroBatchedORPOTrainer", (MicroBatchedTrainer, ORPOTrainer), {})),
    "cpo": (CPOConfig, type("MicroBatchedCPOTrainer", (MicroBatchedTrainer, CPOTrainer), {})),
    "reward": (RewardConfig, type("MicroBatchedRewardTrainer", (MicroBatchedTrainer, RewardTrainer), {})),
}
"""TRL's configuration and trainer of each technique; KTO's reference point is estimated over the rows of a part."""


def build_preference(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer ready to train.

    Raises:
        DataError: If no row is left that is short enough.
    """
    config, trainer_class = TRAINERS[spec.technique.kind]
    arguments = config(
        max_length=spec.technique.max_length,
        # TRL silences dropout by default; if the trial searches the adapter's own, it is meant.
        disable_dropout=spec.hyperparameters.lora_dropout == 0,
        **training_arguments(spec, base),
    )
    # A whole model is compared with the base it is a copy of; an adapter's base needs no mention.
    whole = spec.technique.has_reference and not isinstance(model, PeftModel)
    trainer: Any = trainer_class(
        micro_batch,
        model=model,
        args=one_device(arguments),
        train_dataset=Dataset.from_list(_with_margins(read_prepared(spec.train))),
        eval_dataset=Dataset.from_list(_with_margins(read_prepared(spec.validation))),
        processing_class=base.tokenizer,
        callbacks=[callback],
        **{"ref_model": base.model} if whole else {},
    )
    dropped = "one answer of every pair is longer than" if spec.technique.drops_long else "every prompt fills"
    for split, rows in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if len(rows) == 0:
            raise DataError(
                f"no {split} row is left: {dropped} technique.max_length ({spec.technique.max_length} "
                "tokens); raise it, or shorten the rows"
            )
    return trainer


def _with_margins(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every row a margin if one has it: none at all is what a margin of 0 means in the loss."""
    if not any("margin" in row for row in rows):
        return rows
    return [{"margin": 0.0, **row} for row in rows]
