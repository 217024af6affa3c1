"""The reference of techniques that have one: the base without its adapter."""

from __future__ import annotations

from peft import PeftModel


def forget_reference(model: PeftModel) -> None:
    """Remove the copy of the adapter that TRL keeps as the reference.

    TRL takes an adapter that is there already for one to go on with, and keeps a frozen copy of it as the reference;
    ours is new, so that the base itself is the reference, and the copy only takes memory.
    """
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
