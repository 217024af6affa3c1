"""Distributed trials: one trial trained by several processes (DeepSpeed, FSDP, Unsloth)."""
