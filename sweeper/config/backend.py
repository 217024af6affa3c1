"""Training backends: TRL alone, or with a library that distributes or accelerates it; tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen, word_is_kind

Processes = Annotated[int, Field(ge=1, le=64)] | Literal["auto"]
"""Processes of one trial, one a GPU; auto is every GPU that the machine shows, and one on the CPU."""


class TRL(Frozen):
    """TRL's trainer on one device, in the process that runs the study.

    Attributes:
        liger: Fused Triton kernels of liger-kernel: less memory on long rows. CUDA only.
        compile: ``torch.compile``: minutes at the beginning of every trial, faster steps after.
    """

    kind: Literal["trl"] = "trl"
    liger: bool = False
    compile: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is added to what TRL does by itself."""
        return not (self.liger or self.compile)


class Unsloth(Frozen):
    """TRL's trainer on a model that Unsloth loads and patches, each trial in a process of its own. CUDA only."""

    kind: Literal["unsloth"] = "unsloth"


class DeepSpeed(Frozen):
    """One trial on several GPUs with ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054).

    Attributes:
        stage: 2 spreads gradients and optimizer over the processes, 3 the model's weights too.
        offload: What is kept in main memory beside: ``optimizer``, or with stage 3 ``parameters``, which takes the
            optimizer along.
        processes: How many processes train a trial together.
    """

    kind: Literal["deepspeed"] = "deepspeed"
    stage: Literal[2, 3] = 2
    offload: Literal["none", "optimizer", "parameters"] = "none"
    processes: Processes = "auto"

    @model_validator(mode="after")
    def _parameters_are_spread(self) -> DeepSpeed:
        if self.offload == "parameters" and self.stage != 3:
            raise ValueError("offload: parameters needs stage: 3, which is what spreads them; use offload: optimizer")
        return self


class FSDP(Frozen):
    """One trial on several GPUs with PyTorch's own sharding (``fully_shard``, FSDP2): weights, gradients, optimizer.

    Attributes:
        processes: How many processes train a trial together.
    """

    kind: Literal["fsdp"] = "fsdp"
    processes: Processes = "auto"


Backend = Annotated[TRL | Unsloth | DeepSpeed | FSDP, Field(discriminator="kind"), BeforeValidator(word_is_kind)]
"""A backend as a study file names it: a word, or a mapping with its options."""


def processes(backend: Backend, gpus: int) -> int:
    """Return how many processes train one trial on a machine with that many GPUs."""
    asked = getattr(backend, "processes", 1)
    return max(1, gpus) if asked == "auto" else int(asked)


def spreads_weights(backend: Backend) -> bool:
    """Return whether no process of a trial holds the whole base model."""
    return isinstance(backend, FSDP) or (isinstance(backend, DeepSpeed) and backend.stage == 3)


def in_own_processes(backend: Backend) -> bool:
    """Return whether each trial runs in processes of its own, which load the base model themselves."""
    return not isinstance(backend, TRL)
