"""Gradient checkpointing: one answer for training, memory estimates and exports."""

from __future__ import annotations

from sweeper.config.adapter import AnyAdapter
from sweeper.config.technique import Technique


def checkpoints(technique: Technique, adapter: AnyAdapter, device: str) -> bool:
    """Return whether a trial checkpoints; ``auto`` does on CUDA, where memory is scarce, if the adapter can."""
    asked = technique.gradient_checkpointing
    return adapter.can_checkpoint and (device != "cpu" if asked == "auto" else asked)
