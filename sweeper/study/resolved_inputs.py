"""Resolved inputs of a study, kept beside it for ``resume``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sweeper.config.model import ModelConfig
from sweeper.config.rewards import RewardSources
from sweeper.config.study import StudyConfig
from sweeper.config.technique import Technique
from sweeper.data.files import Row
from sweeper.data.rendering import lengths
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import StudyStateError
from sweeper.executors.context import StudyModel
from sweeper.files.atomic import write_json
from sweeper.models.facts import fingerprint, read_facts
from sweeper.training.cpu_dtype import CpuType


@dataclass(frozen=True)
class FoundModel:
    """A base model as it was found; ``tokens_per_row`` is what the longest training row takes through it."""

    folder: str
    fingerprint: str
    tokens_per_row: int


@dataclass(frozen=True)
class ResolvedInputs:
    """The rows, base models and rewards of a study as they were found.

    Attributes:
        train_rows: Rows of the training split.
        models: Its base models by name.
        reward_sources: Where its rewards are, if it has any.
        cpu_dtype: What ``dtype: auto`` is on a CPU: one type for all processes of the study, on whatever machine.
    """

    train_rows: int
    models: dict[str, FoundModel]
    reward_sources: RewardSources | None = None
    cpu_dtype: CpuType = "float32"

    @classmethod
    def of(
        cls,
        folders: Mapping[str, Path],
        train: Sequence[Row],
        technique: Technique,
        sources: RewardSources | None,
        cpu_dtype: CpuType = "float32",
    ) -> ResolvedInputs:
        """Measure the base models in ``folders`` and the training rows in their tokens."""

        def found(folder: Path) -> FoundModel:
            longest = max(lengths(train, ModelTokenizer.load(folder)))
            return FoundModel(str(folder), fingerprint(folder), technique.tokens_per_row(longest))

        return cls(len(train), {name: found(folder) for name, folder in folders.items()}, sources, cpu_dtype)

    @classmethod
    def read(cls, study: str, file: Path) -> ResolvedInputs:
        """Read what ``write`` wrote.

        Raises:
            StudyStateError: If another version of sweeper wrote it, or it is damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(file.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise StudyStateError(
                f"study {study!r} cannot go on: {file} is damaged, or of another version of sweeper; run the study "
                "again under another name (--name)"
            ) from error

    def write(self, file: Path) -> None:
        """Keep it for `resume`."""
        write_json(file, TypeAdapter(ResolvedInputs).dump_python(self, mode="json"))

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the study's base model; of several, a hash over theirs."""
        first, *others = (model.fingerprint for model in self.models.values())
        return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first

    def require_unchanged(self, study: str) -> None:
        """Refuse a base model that has changed.

        Raises:
            StudyStateError: If one is.
        """
        for model in self.models.values():
            if fingerprint(Path(model.folder)) != model.fingerprint:
                raise StudyStateError(
                    f"study {study!r} cannot go on: the base model in {model.folder} is another one now"
                )

    def study_models(self, config: StudyConfig, device: str) -> dict[str, StudyModel]:
        """Return the base models as trials on a device need them."""

        def named(model: ModelConfig) -> ModelConfig:
            decided = device == "cpu" and model.dtype == "auto"
            return model.model_copy(update={"dtype": self.cpu_dtype}) if decided else model

        return {
            name: StudyModel(
                config=named(config.models[name]),
                folder=Path(model.folder),
                fingerprint=model.fingerprint,
                facts=read_facts(Path(model.folder)),
                tokens_per_row=model.tokens_per_row,
            )
            for name, model in self.models.items()
        }
