"""The source of an export: plain data, no database and no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweeper.config.adapter import LowRank, QuantisedBase
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT, Policy
from sweeper.config.trial import TrialSpec
from sweeper.errors import ExportError


@dataclass(frozen=True)
class BaseModelSource:
    """The base model of the adapter.

    Attributes:
        folder: Its local folder; absolute. Named in training files only, never in a model card.
        name: Its display name.
        hub_id: ``owner/name`` on the Hugging Face Hub, when known.
        revision: Commit or tag on the Hub, when known.
        licence: The Hub's identifier of its licence, for example ``apache-2.0``, when known.
        fingerprint: SHA-256 of its weights.
    """

    folder: Path
    name: str
    fingerprint: str
    hub_id: str | None = None
    revision: str | None = None
    licence: str | None = None

    @property
    def public_name(self) -> str:
        """Its name on every machine: the Hub's, else the display name."""
        return self.hub_id or Path(self.name).name


@dataclass(frozen=True)
class SplitSource:
    """One prepared split: an absolute JSONL path, the file's SHA-256 and its number of rows."""

    path: Path
    sha256: str
    rows: int


@dataclass(frozen=True)
class Score:
    """One metric of the winner and its base: means over the examples of a split, with bounds of 95 % intervals.

    The difference is the paired one between the two.
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
        adapter_name: Name in the registry, as is ``version``.
        adapter_folder: PEFT folder with ``adapter_config.json`` and ``adapter_model.safetensors``; of full fine-tuning
            a model's, with ``config.json`` and ``model.safetensors``.
        spec: The winning trial's.
        dtype: The trial's: ``float32``, ``bfloat16`` or ``float16``.
        attention: Attention implementation of the trial, for example ``sdpa``.
        micro_batch: Rows per forward pass of the trial.
        steps: Planned optimizer steps of the trial.
        best_step: The step whose adapter was kept; None if unknown.
        test: Named in the card only.
        scores: Final scores, the deciding one first.
        search: In words, for example ``best of 12 trials (TPE, halving)``.
        versions: Package versions of the trial by package name.
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
        """The technique, for formats that only train on right answers.

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
    def policy(self) -> Policy | None:
        """The technique, if it learns from rewards."""
        return self.spec.technique if isinstance(self.spec.technique, Policy) else None

    @property
    def rows_per_pass(self) -> int:
        """The largest divisor of the effective batch up to ``micro_batch``: other tools take only whole parts."""
        batch = self.spec.rows_per_step
        return next(rows for rows in range(min(self.micro_batch, batch), 0, -1) if batch % rows == 0)

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.spec.rows_per_step // self.rows_per_pass

    @property
    def evaluation_steps(self) -> int:
        """Optimizer steps between two evaluations, as in the trial, unless evaluating does harm.

        On CPUs with AVX512-BF16 bitsandbytes 0.50 repacks 4-bit weights on the first evaluation, and later training
        steps lose gradients. sweeper forbids that; the other tools cannot, so they evaluate at the end only.
        """
        if self.on_cpu and self.four_bit:
            return self.steps
        return max(1, math.ceil(self.steps / self.spec.evaluation.points))

    @property
    def lora(self) -> LowRank | None:
        """LoRA's options; None for any other adapter."""
        return self.spec.adapter if isinstance(self.spec.adapter, LowRank) else None

    @property
    def quantised(self) -> QuantisedBase | None:
        """The quantisation of the base; None if it is dense."""
        adapter = self.spec.adapter
        return adapter if isinstance(adapter, QuantisedBase) and adapter.quantization is not None else None

    @property
    def four_bit(self) -> bool:
        """Whether the base is quantised to 4 bits."""
        return self.quantised is not None and self.quantised.quantization != "int8"

    @property
    def is_reward_model(self) -> bool:
        """Whether the trained model scores texts: its head is a single score, not the vocabulary."""
        return self.spec.technique.head == "score"

    @property
    def loader(self) -> str:
        """Name of transformers' class that loads the model."""
        return "AutoModelForSequenceClassification" if self.is_reward_model else "AutoModelForCausalLM"

    def loader_class(self) -> Any:
        """Return that class."""
        import transformers

        return getattr(transformers, self.loader)

    @property
    def on_cpu(self) -> bool:
        """Whether the trial ran on the CPU."""
        return self.spec.device == "cpu"

    @property
    def checkpointing(self) -> bool:
        """Whether the trial recomputed activations."""
        return self.spec.technique.checkpoints(self.spec.adapter, self.spec.device)

    @property
    def warmup_steps(self) -> int:
        """Warmup in optimizer steps, a ratio rounded up as transformers does."""
        hyperparameters = self.hyperparameters
        if hyperparameters.warmup_steps is not None:
            return hyperparameters.warmup_steps
        return math.ceil(self.steps * (hyperparameters.warmup_ratio or 0.0))


@dataclass(frozen=True)
class Exported:
    """A finished export: all its files, sorted, and notes for the user (usage, losses, measured errors)."""

    format: str
    folder: Path
    paths: tuple[Path, ...]
    notes: tuple[str, ...]


class Format(Protocol):
    """An export format: a module with these names, which touches nothing outside the folder that it is given."""

    TITLE: str
    """One line for the help and the dashboard."""

    def write(self, source: ExportSource, folder: Path, out: Path) -> list[str]:
        """Fill the empty ``folder``, which will be renamed to ``out``, and return notes for the user.

        Paths inside the written files must begin with ``out``.
        """
        ...

    def verify(self, source: ExportSource, folder: Path) -> list[str]:
        """Load the written files, compare them with the source, and return notes for the user.

        Raises:
            ExportError: If they differ.
        """
        ...
