"""Executors, one class each, tagged by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from sweeper.config.base import Frozen, word_is_kind

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]

Named = Annotated[str, Field(pattern=r"^(cpu|cuda:\d+)$")]
"""One device by name."""

Devices = Annotated[tuple[Named, ...], Field(min_length=1, max_length=64)]

MicroBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""Rows of one trial per forward pass; auto is the most that fits memory."""


class BaseExecutorConfig(Frozen):
    """What every executor does about workers that fall silent.

    Attributes:
        max_retries: How many workers in a row may die with a trial, without a checkpoint in between, before it is
            failed and not given to another.
        grace_s: Seconds a worker may be silent before others take over what it runs; on one machine a process that is
            gone is noticed at once.
        checkpoint_s: Seconds between two checkpoints of a running trial; 0 is one after every step.
        stall_timeout_s: Seconds without a step after which a worker hangs and is ended; null is never.
    """

    max_retries: Annotated[int, Field(ge=0, le=1_000)] = 3
    grace_s: Annotated[float, Field(ge=1, le=3_600)] = 30.0
    checkpoint_s: Annotated[float, Field(ge=0)] = 300.0
    stall_timeout_s: Annotated[float, Field(gt=0)] | None = 1_800.0


class PackingExecutorConfig(BaseExecutorConfig):
    """Many trials at once in one process, in the same forward and backward pass over one base model.

    Attributes:
        slots: Most trials at once in a process; auto is a third of the study's trials, so that the search still learns
            from some before it chooses others, but no more than memory holds, and not above 8.
    """

    slots: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


class PackedExecutorConfig(PackingExecutorConfig):
    """All trials in this process."""

    kind: Literal["packed"] = "packed"


class InlineExecutorConfig(BaseExecutorConfig):
    """One trial after the other in this process, on a base model that stays loaded."""

    kind: Literal["inline"] = "inline"
    device: Device = "auto"
    micro_batch: MicroBatch = "auto"


class SharedExecutorConfig(PackingExecutorConfig):
    """Several worker processes that share the study's trials, each with a base model and passes of its own.

    Attributes:
        device: Where the final scoring runs, in the process that was started; with ``cpu`` the workers use no GPU.
        max_restarts: How often a worker that died is started again before any trial of it has ended.
    """

    max_restarts: Annotated[int, Field(ge=0, le=1_000)] = 3


class PerGpuExecutorConfig(SharedExecutorConfig):
    """One worker process a device of this machine.

    Attributes:
        devices: Their number, or their names; auto is every GPU, and one worker where there is none. On a machine
            without a GPU, and with ``device: cpu``, a number is that of workers which divide the processors.
    """

    kind: Literal["per_gpu"] = "per_gpu"
    devices: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] | Devices = "auto"

    @field_validator("devices")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        """Two workers on one GPU would take each other's memory."""
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("names a device twice; list each once")
        return value


class RayExecutorConfig(SharedExecutorConfig):
    """Workers on the nodes of a Ray cluster; nodes that join are used, and one that is lost loses no trial.

    Attributes:
        address: Of the cluster's head (``host:port``); auto is the cluster that this machine is part of, else one that
            is started on this machine for the study, as ``local`` does always.
        workers: How many; auto is as many as the cluster has room for, at any time.
        gpus_per_worker: GPUs of each; auto is 1, and 0 with ``device: cpu``.
        cpus_per_worker: Processors of each.
        resources: What else each takes of the resources that the nodes were given names for.
        artifacts: ``shared`` where the home is a folder that every node sees; else where trials' files are exchanged,
            as a URL that fsspec knows, such as ``s3://bucket/prefix``.
    """

    kind: Literal["ray"] = "ray"
    address: Annotated[str, Field(pattern=r"^(auto|local|[A-Za-z0-9._-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5})$")] = "auto"
    workers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] | Literal["auto"] = "auto"
    cpus_per_worker: Annotated[float, Field(gt=0, le=1_024)] = 1.0
    resources: dict[Annotated[str, Field(min_length=1, max_length=100)], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict
    )
    artifacts: Annotated[str, Field(pattern=r"^(shared|[a-z][a-z0-9+.-]*://[^\s]+)$", max_length=1_000)] = "shared"

    @property
    def gpus(self) -> float:
        """GPUs of each worker."""
        if self.gpus_per_worker == "auto":
            return 0.0 if self.device == "cpu" else 1.0
        return self.gpus_per_worker

    @field_validator("artifacts")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        """They would be stored with the study; fsspec takes them from the environment of each node."""
        if "@" in urlsplit(value).netloc:
            raise ValueError("holds credentials; set them in the environment of every node, and leave them out here")
        return value


def _packed_unless_said(value: Any) -> Any:
    """``executor: {device: cpu}`` means the packed one."""
    return {"kind": "packed", **value} if isinstance(value, dict) and "kind" not in value else value


Executor = Annotated[
    PackedExecutorConfig | InlineExecutorConfig | PerGpuExecutorConfig | RayExecutorConfig,
    Field(discriminator="kind"),
    BeforeValidator(_packed_unless_said),
    BeforeValidator(word_is_kind),
]
"""The next executor is one more class here."""
