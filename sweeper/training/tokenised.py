"""A study's tokenised rows: made once, cached on disk by content, memory-mapped by every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from trl import SFTConfig, SFTTrainer

from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.config.trl_fields import ROW_FIELDS
from sweeper.data.as_trained import learned
from sweeper.data.rendering import Row, render
from sweeper.data.splits import read_prepared
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.files.atomic import new_folder
from sweeper.retry import retried
from sweeper.training.base_model import BaseModel

_READ = ("input_ids", "labels", "seq_lengths")
"""Columns that the collator reads; only packed training rows have the last one."""

_AT_ONCE = 1000
"""Rows that are rendered at a time."""

_MADE_BY = 2
"""Counts the ways in which rows became tokens, so that those of a former way are not read."""


def tokenised(
    spec: TrialSpec, base: BaseModel, model: torch.nn.Module, arguments: SFTConfig
) -> tuple[Dataset, Dataset]:
    """Return the training and the validation split of a trial in tokens.

    They are cached beside the study's data, named by the content that they were made from, for other trials, processes
    and resumed studies. ``model`` is the base with an adapter, as a trainer requires.

    Raises:
        DataError: If nothing with a loss is left after truncation.
    """
    key = (spec.train, spec.validation, spec.technique, *_row_fields(spec))
    if key not in base.tokenised:
        folder = spec.train.parent / "tokenised" / _digest(spec, base)
        with base.backend.ranks.leader_first():
            if not folder.is_dir():
                _keep(folder, _prepare(spec, base, model, arguments))
        base.tokenised[key] = tuple(load_from_disk(str(folder / split)) for split in ("train", "validation"))
    train, validation = base.tokenised[key]
    return train, validation


@retried
def _keep(folder: Path, splits: Mapping[str, Dataset]) -> None:
    with new_folder(folder) as filled:
        for split, dataset in splits.items():
            dataset.save_to_disk(str(filled / split))


def _prepare(spec: TrialSpec, base: BaseModel, model: torch.nn.Module, arguments: SFTConfig) -> dict[str, Dataset]:
    """Return the splits in tokens, truncated and packed by TRL."""
    assert isinstance(spec.technique, SFT)
    train, validation = (_tokens(path, base, spec.technique) for path in (spec.train, spec.validation))
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=train, eval_dataset=validation, processing_class=base.tokenizer
    )
    splits = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    for split, dataset in splits.items():
        if len(dataset) == 0:
            raise DataError(
                f"no {split} row has anything to learn after cutting at technique.max_length "
                f"{spec.technique.max_length}; raise it, or shorten the prompts"
            )
    return {
        split: dataset.select_columns([name for name in _READ if name in dataset.features])
        for split, dataset in splits.items()
    }


def _tokens(path: Path, base: BaseModel, technique: SFT) -> Dataset:
    """Return a split's rows with a label for every token."""
    rows, tokenizer = read_prepared(path), ModelTokenizer.of(base.tokenizer)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for some in _parts(rows):
        for row, rendering in zip(some, render(some, tokenizer), strict=True):
            losses = learned(rendering, technique, completions="text" not in row)
            columns["input_ids"].append(rendering.ids)
            columns["labels"].append(
                [number if loss else -100 for number, loss in zip(rendering.ids, losses, strict=True)]
            )
    return Dataset.from_dict(columns)


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))


def _digest(spec: TrialSpec, base: BaseModel) -> str:
    """Return a digest of what the tokens are made from: rows, tokenizer, template, technique and TRL's version."""
    digest = hashlib.sha256()
    for path in (spec.train, spec.validation):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    tokenizer = base.tokenizer
    made_with = (
        _MADE_BY,
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        tokenizer.special_tokens_map,
        spec.technique.model_dump(mode="json"),
        _row_fields(spec),
        version("trl"),
    )
    digest.update(json.dumps(made_with, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def _row_fields(spec: TrialSpec) -> tuple[tuple[str, Any], ...]:
    """Return the TRL fields of a trial that change its tokenised rows; most of TRL's fields do not."""
    fields = {name: value for name, value in spec.hyperparameters.trl.items() if name in ROW_FIELDS}
    if fields.get("shuffle_dataset"):
        fields["seed"] = spec.seed
    return tuple(sorted(fields.items()))
