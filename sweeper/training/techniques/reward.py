"""Reward models with TRL's ``RewardTrainer``: the better answer of a pair is to score higher."""

from __future__ import annotations

from typing import Any

from trl import RewardConfig, RewardTrainer

from sweeper.config.trial import TrialSpec
from sweeper.training.base_model import BaseModel
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.micro_batched_trainer import MicroBatchedTrainer
from sweeper.training.reporting import ReportingCallback
from sweeper.training.techniques.paired import Parts, build_ranked
from sweeper.training.weights import Adapted


class FittingRewardTrainer(MicroBatchedTrainer, RewardTrainer):
    """TRL's trainer, taking a step in as many parts as memory asks for."""


_PARTS = Parts(RewardConfig, FittingRewardTrainer, "one answer of every pair is longer than")


def build_reward(
    spec: TrialSpec, base: BaseModel, model: Adapted, micro_batch: MicroBatch, callback: ReportingCallback
) -> Any:
    """Return a trainer ready to train; pairs with an answer longer than ``max_length`` are dropped.

    Raises:
        DataError: If no pair is left.
    """
    return build_ranked(_PARTS, spec, base, model, micro_batch, callback)
