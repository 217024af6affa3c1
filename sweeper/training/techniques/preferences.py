"""Learning from what people prefer, with TRL's trainers for DPO, KTO, ORPO and CPO."""

from __future__ import annotations

import os
from typing import Any

from sweeper.config.trial import TrialSpec
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.micro_batched_trainer import MicroBatchedTrainer
from sweeper.training.reporting import ReportingCallback
from sweeper.training.techniques.paired import Parts, build_ranked
from sweeper.training.techniques.reference import forget_reference
from sweeper.training.weights import Adapted

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL warns of its experimental folder, where ORPO and CPO live

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class _WithReference(MicroBatchedTrainer):
    """The reference of DPO and KTO is the base without its adapter."""

    def __init__(self, micro_batch: MicroBatch, **arguments: Any) -> None:
        super().__init__(micro_batch, **arguments)
        forget_reference(self.model)


class FittingDPOTrainer(_WithReference, DPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


class FittingKTOTrainer(_WithReference, KTOTrainer):
    """TRL's trainer; its reference point is estimated over the rows of a part."""


class FittingORPOTrainer(MicroBatchedTrainer, ORPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


class FittingCPOTrainer(MicroBatchedTrainer, CPOTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


_CUT = "every prompt fills"
_PARTS = {
    "dpo": Parts(DPOConfig, FittingDPOTrainer, _CUT),
    "kto": Parts(KTOConfig, FittingKTOTrainer, _CUT),
    "orpo": Parts(ORPOConfig, FittingORPOTrainer, _CUT),
    "cpo": Parts(CPOConfig, FittingCPOTrainer, _CUT),
}


def build_preference(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer ready to train.

    Raises:
        DataError: If no row is left after truncation.
    """
    return build_ranked(_PARTS[spec.technique.kind], spec, base, model, micro_batch, callback)
