"""What all techniques share that learn from answers which people ranked: how a trainer of TRL's is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from peft import PeftModel

from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError
from sweeper.training.arguments import one_device, training_arguments
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.reporting import ReportingCallback
from sweeper.training.weights import Adapted


@dataclass(frozen=True)
class Parts:
    """What TRL has for a technique: the class of its configuration and the trainer.

    Attributes:
        config: A configuration class of TRL's.
        trainer: A trainer that is ``Fitting``.
        dropped: Why rows may be left out, for the case that none is left.
    """

    config: type
    trainer: type
    dropped: str


def build_ranked(
    parts: Parts,
    spec: TrialSpec,
    base: BaseModel,
    model: Adapted,
    micro_batch: MicroBatch,
    callback: ReportingCallback,
) -> Any:
    """Return a trainer ready to train.

    Raises:
        DataError: If no row is left that is short enough.
    """
    arguments = parts.config(
        max_length=spec.technique.max_length,
        # TRL silences dropout by default; where the trial searches the adapter's own, it is meant.
        disable_dropout=spec.hyperparameters.lora_dropout == 0,
        **training_arguments(spec, base),
    )
    # A whole model is compared with the base it is a copy of; an adapter's base is there without more ado.
    whole = spec.technique.has_reference and not isinstance(model, PeftModel)
    trainer = parts.trainer(
        micro_batch,
        model=model,
        args=one_device(arguments),
        train_dataset=Dataset.from_list(_with_margins(read_prepared(spec.train))),
        eval_dataset=Dataset.from_list(_with_margins(read_prepared(spec.validation))),
        processing_class=base.tokenizer,
        callbacks=[callback],
        **{"ref_model": base.model} if whole else {},
    )
    for split, rows in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if len(rows) == 0:
            raise DataError(
                f"no {split} row is left: {parts.dropped} technique.max_length ({spec.technique.max_length} "
                "tokens); raise it, or shorten the rows"
            )
    return trainer


def _with_margins(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let every row have a margin where one has: none at all is what a margin of 0 means in the loss."""
    if not any("margin" in row for row in rows):
        return rows
    return [{"margin": 0.0, **row} for row in rows]
