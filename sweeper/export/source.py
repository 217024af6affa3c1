"""The source of an export: plain data, no database and no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.config.adapter import LowRank, QuantisedBase
from sweeper.config.checkpointing import checkpoints
from sweeper.config.technique import SFT
from sweeper.config.trial import Hyperparameters, TrialSpec
from sweeper.errors import ExportError


@dataclass(frozen=True)
class BaseModelSource:
    """The base model that the adapter stands on.

    Attributes:
        folder: Its local folder; absolute. Named in training files only, never in a model card.
        name: How people call it.
        hub_id: ``owner/name`` on the Hugging Face Hub, when known.
        revision: Commit or tag on the Hub, when known.
        licence: Its licence by the Hub's identifier, for example ``apache-2.0``, when known.
        fingerprint: SHA-256 over its weights.
    """

    folder: Path
    name: str
    fingerprint: str
    hub_id: str | None = None
    revision: str | None = None
    licence: str | None = None

    @property
    def public_name(self) -> str:
        """The name that means the same on every machine: the Hub's, else the display name."""
        return self.hub_id or Path(self.name).name


@dataclass(frozen=True)
class SplitSource:
    """One prepared split: an absolute JSONL path, the file's SHA-256 and its number of rows."""

    path: Path
    sha256: str
    rows: int


@dataclass(frozen=True)
class Score:
    """One metric of the winner beside its base, with 95 % intervals.

    Attributes:
        metric: Name of the metric.
        split: ``test`` or ``validation``.
        score: Mean over the examples, with the adapter; ``low`` and ``high`` bound its interval.
        base_score: The same without the adapter.
        difference_low: Lower bound of the paired difference to the base; ``difference_high`` is the upper.
    """

    metric: str
    split: str
    score: float
    low: float
    high: float
    base_score: float
    difference_low: float
    difference_high: float


@dataclass(frozen=True)
class ExportSource:
    """A registered adapter version with everything that led to it.

    Attributes:
        study: Name of the study.
        adapter_name: Name in the registry.
        version: Version in the registry, from 1.
        adapter_folder: PEFT folder with ``adapter_config.json`` and ``adapter_model.safetensors``; of full fine-tuning
            a model's, with ``config.json`` and ``model.safetensors``.
        base: The base model.
        spec: What the winning trial was asked to do.
        dtype: What the trial computed in: ``float32``, ``bfloat16`` or ``float16``.
        attention: Attention implementation of the trial, for example ``sdpa``.
        micro_batch: Rows per forward pass of the trial.
        steps: Optimizer steps of the trial, planned.
        best_step: The step whose adapter was kept; None where it is not known.
        train: Prepared training split.
        validation: Prepared validation split.
        test: Prepared test split, named in the card only.
        scores: Final scores, the deciding one first.
        search: How it was found, in a sentence, for example ``best of 12 trials (TPE, halving)``.
        versions: Package versions of the trial by package name.
        sweeper_version: sweeper's own version.
    """

    study: str
    adapter_name: str
    version: int
    adapter_folder: Path
    base: BaseModelSource
    spec: TrialSpec
    dtype: str
    attention: str
    micro_batch: int
    steps: int
    train: SplitSource
    validation: SplitSource
    scores: tuple[Score, ...]
    search: str
    versions: Mapping[str, str]
    sweeper_version: str
    best_step: int | None = None
    test: SplitSource | None = None

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The winning configuration."""
        return self.spec.hyperparameters

    @property
    def supervised(self) -> SFT:
        """The technique, for formats that train with right answers only.

        Raises:
            ExportError: If it is another one.
        """
        technique = self.spec.technique
        if not isinstance(technique, SFT):
            raise ExportError(
                f"this format is written for sft, and the winner was trained with {technique.kind}; export it to trl, "
                "or as adapter or merged"
            )
        return technique

    @property
    def rows_per_pass(self) -> int:
        """The most rows up to ``micro_batch`` that divide the effective batch: other tools take only whole parts."""
        batch = self.spec.rows_per_step
        return next(rows for rows in range(min(self.micro_batch, batch), 0, -1) if batch % rows == 0)

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.spec.rows_per_step // self.rows_per_pass

    @property
    def evaluation_steps(self) -> int:
        """Optimizer steps between two evaluations; as many evaluations as the trial had, where they do no harm.

        On CPUs with AVX512-BF16 bitsandbytes 0.50 repacks 4-bit weights on the first evaluation, and later training
        steps lose gradients. sweeper forbids that; the other tools cannot be told to, so they evaluate at the end only.
        """
        if self.on_cpu and self.four_bit:
            return self.steps
        return max(1, math.ceil(self.steps / self.spec.evaluation.points))

    @property
    def lora(self) -> LowRank | None:
        """LoRA's options; None of any other adapter."""
        return self.spec.adapter if isinstance(self.spec.adapter, LowRank) else None

    @property
    def quantised(self) -> QuantisedBase | None:
        """The quantisation of the base; None on a dense one."""
        adapter = self.spec.adapter
        return adapter if isinstance(adapter, QuantisedBase) and adapter.quantization is not None else None

    @property
    def four_bit(self) -> bool:
        """Whether the base is quantised to 4 bits."""
        return self.quantised is not None and self.quantised.quantization != "int8"

    @property
    def on_cpu(self) -> bool:
        """Whether the trial ran on the CPU."""
        return self.spec.device == "cpu"

    @property
    def checkpointing(self) -> bool:
        """Whether the trial recomputed activations."""
        return checkpoints(self.spec.technique, self.spec.adapter, self.spec.device)

    @property
    def warmup_steps(self) -> int:
        """Warmup in optimizer steps, a ratio rounded up as transformers does."""
        hyperparameters = self.hyperparameters
        if hyperparameters.warmup_steps is not None:
            return hyperparameters.warmup_steps
        return math.ceil(self.steps * (hyperparameters.warmup_ratio or 0.0))


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        format: The format's name.
        folder: The folder it wrote.
        paths: Every file in it, sorted.
        notes: What the user should know: how to use it, what could not be carried over, measured errors.
    """

    format: str
    folder: Path
    paths: tuple[Path, ...]
    notes: tuple[str, ...]


WriteStep = Callable[[ExportSource, Path, Path], list[str]]
"""Fill an empty folder (second argument) that will be renamed to ``out`` (third); return notes for the user.

Paths inside the written files must begin with ``out``, because that is where they will be.
"""

VerifyStep = Callable[[ExportSource, Path], list[str]]
"""Load what the folder holds, compare it with the source, return notes; ``ExportError`` on a difference."""


@dataclass(frozen=True)
class Format:
    """One export format: a module with these two functions, neither of which touches anything outside its folder."""

    write: WriteStep
    verify: VerifyStep
