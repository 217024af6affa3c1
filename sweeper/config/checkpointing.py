"""Whether activations are computed anew in the backward pass: asked by training, memory estimates and exports alike."""

from __future__ import annotations

from sweeper.config.adapter import AnyAdapter
from sweeper.config.technique import Technique


def checkpoints(technique: Technique, adapter: AnyAdapter, device: str) -> bool:
    """Return whether a trial checkpoints; ``auto`` does on CUDA, where memory is scarce, if the adapter can."""
    asked = technique.gradient_checkpointing
    return adapter.can_checkpoint and (device != "cpu" if asked == "auto" else asked)
