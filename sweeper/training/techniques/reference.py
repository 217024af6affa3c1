"""The reference of techniques that have one: the base without its adapter."""

from __future__ import annotations

from peft import PeftModel

from sweeper.training.weights import Adapted


def forget_reference(model: Adapted) -> None:
    """Remove the copy of the adapter that TRL keeps as the reference.

    TRL takes an adapter that is there already for one to go on with, and keeps a frozen copy of it as the reference;
    ours is new, so that the base itself is the reference, and the copy only takes memory.
    """
    if isinstance(model, PeftModel) and "ref" in model.peft_config:
        model.delete_adapter("ref")
