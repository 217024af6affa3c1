"""Training backends, tagged by ``kind``: TRL alone, or with a library that distributes or accelerates it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from sweeper.config.base import Frozen, word_is_kind

Processes = Annotated[int, Field(ge=1, le=64)] | Literal["auto"]
"""Processes of one trial, one per GPU; auto is every visible GPU, or one process on the CPU."""


class TRL(Frozen):
    """TRL's trainer on one device, in the process that runs the study.

    Attributes:
        liger: Fused Triton kernels of liger-kernel: less memory on long rows. CUDA only.
        compile: ``torch.compile``: takes minutes at the start of every trial, then makes steps faster.
    """

    kind: Literal["trl"] = "trl"
    liger: bool = False
    compile: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether no option is set."""
        return not (self.liger or self.compile)


class Unsloth(Frozen):
    """TRL's trainer on a model that Unsloth loads and patches, each trial in its own process. CUDA only."""

    kind: Literal["unsloth"] = "unsloth"


class DeepSpeed(Frozen):
    """One trial on several GPUs with ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054).

    Attributes:
        stage: 2 shards gradients and optimizer over the processes, 3 also the model's weights.
        offload: State moved to main memory: ``optimizer``, or with stage 3 ``parameters``, which include it.
    """

    kind: Literal["deepspeed"] = "deepspeed"
    stage: Literal[2, 3] = 2
    offload: Literal["none", "optimizer", "parameters"] = "none"
    processes: Processes = "auto"

    @model_validator(mode="after")
    def _parameters_are_spread(self) -> DeepSpeed:
        if self.offload == "parameters" and self.stage != 3:
            raise ValueError("offload: parameters needs stage: 3, which shards them; use offload: optimizer")
        return self


class FSDP(Frozen):
    """One trial on several GPUs with PyTorch's sharding (``fully_shard``, FSDP2): weights, gradients, optimizer."""

    kind: Literal["fsdp"] = "fsdp"
    processes: Processes = "auto"


Backend = Annotated[TRL | Unsloth | DeepSpeed | FSDP, Field(discriminator="kind"), BeforeValidator(word_is_kind)]
"""A backend in a study file: a word, or a mapping with options."""


def processes(backend: Backend, gpus: int) -> int:
    """Return the number of processes per trial on a machine with that many GPUs."""
    asked = getattr(backend, "processes", 1)
    return max(1, gpus) if asked == "auto" else int(asked)


def spreads_weights(backend: Backend) -> bool:
    """Return whether the base model is sharded over the processes of a trial."""
    return isinstance(backend, FSDP) or (isinstance(backend, DeepSpeed) and backend.stage == 3)


def in_own_processes(backend: Backend) -> bool:
    """Return whether each trial runs in its own processes, which load the base model themselves."""
    return not isinstance(backend, TRL)
