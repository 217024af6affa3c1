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
    """Fault tolerance of every executor.

    Attributes:
        max_retries: Number of consecutive workers that may die with a trial, without a checkpoint in between, before
            the trial fails.
        grace_s: Seconds without a heartbeat before others take over a worker's trials; on one machine the exit of a
            process is noticed at once.
        checkpoint_s: Seconds between two checkpoints of a running trial; 0 is one after every step.
        stall_timeout_s: Seconds without a step after which a worker counts as hung and is ended; null is never.
    """

    max_retries: Annotated[int, Field(ge=0, le=1_000)] = 3
    grace_s: Annotated[float, Field(ge=1, le=3_600)] = 30.0
    checkpoint_s: Annotated[float, Field(ge=0)] = 300.0
    stall_timeout_s: Annotated[float, Field(gt=0)] | None = 1_800.0


class PackingExecutorConfig(BaseExecutorConfig):
    """Many trials at once in one process, in the same forward and backward pass over one base model.

    Attributes:
        slots: Most trials at once in a process; auto is a third of the study's trials, so that the search can learn
            from some before it chooses others, but no more than fit into memory, and at most 8.
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
    """Several worker processes that share the study's trials, each with its own base model and passes.

    Attributes:
        device: Device of the final scoring, in the main process; with ``cpu`` the workers use no GPU.
        max_restarts: Number of restarts of a worker that died before completing any trial.
    """

    max_restarts: Annotated[int, Field(ge=0, le=1_000)] = 3


class PerGpuExecutorConfig(SharedExecutorConfig):
    """One worker process per device of this machine.

    Attributes:
        devices: Their number, or their names; auto is every GPU, or one worker if there is none. Without a GPU, or
            with ``device: cpu``, a number of workers divides the processors.
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
    """Workers on the nodes of a Ray cluster; nodes that join are used, and the loss of one loses no trial.

    Attributes:
        address: Address of the cluster's head (``host:port``); auto is the cluster that this machine is part of, or
            else a new one on this machine for the study, as with ``local``.
        workers: Their number; auto is as many as the cluster has room for, at any time.
        gpus_per_worker: auto is 1, or 0 with ``device: cpu``.
        resources: Further named resources that each worker takes from its node.
        artifacts: ``shared`` if every node sees the home folder; else the fsspec URL through which trials' files are
            exchanged, such as ``s3://bucket/prefix``.
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
        """Credentials would be stored with the study; fsspec takes them from the environment of each node."""
        if "@" in urlsplit(value).netloc:
            raise ValueError("holds credentials; remove them, and set them in the environment of every node")
        return value


def _packed_by_default(value: Any) -> Any:
    """``executor: {device: cpu}`` means the packed one."""
    return {"kind": "packed", **value} if isinstance(value, dict) and "kind" not in value else value


Executor = Annotated[
    PackedExecutorConfig | InlineExecutorConfig | PerGpuExecutorConfig | RayExecutorConfig,
    Field(discriminator="kind"),
    BeforeValidator(_packed_by_default),
    BeforeValidator(word_is_kind),
]
