"""A study's tokenised rows: made once by TRL, cached on disk by content, memory-mapped by every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from trl import SFTConfig, SFTTrainer

from sweeper.config.technique import SFT, Technique
from sweeper.config.trial import TrialSpec
from sweeper.config.trl_fields import ROW_FIELDS
from sweeper.data.splits import read_prepared
from sweeper.errors import DataError
from sweeper.files.atomic import new_folder
from sweeper.retry import retried
from sweeper.training.base_model import BaseModel

_READ = ("input_ids", "labels", "seq_lengths")
"""Columns that the collator reads; only packed training rows have the last one."""


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


def has_completions(path: Path) -> bool:
    """Return whether the rows have a completion; TRL refuses to mask the prompt of a plain text."""
    with path.open(encoding="utf-8") as file:
        return "text" not in json.loads(file.readline())


@retried
def _keep(folder: Path, splits: Mapping[str, Dataset]) -> None:
    with new_folder(folder) as filled:
        for split, dataset in splits.items():
            dataset.save_to_disk(str(filled / split))


def _prepare(spec: TrialSpec, base: BaseModel, model: torch.nn.Module, arguments: SFTConfig) -> dict[str, Dataset]:
    train, validation = (_rows(path, spec.technique) for path in (spec.train, spec.validation))
    try:
        trainer = SFTTrainer(
            model=model, args=arguments, train_dataset=train, eval_dataset=validation, processing_class=base.tokenizer
        )
    except ValueError as error:
        if not arguments.assistant_only_loss or "chat template" not in str(error):
            raise
        raise DataError(
            f"technique.assistant_only: the model's chat template does not mark the assistant's turns, and TRL cannot "
            f"add the marks: {error}; use completion_only, or a model whose template has {{% generation %}}"
        ) from error
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


def _digest(spec: TrialSpec, base: BaseModel) -> str:
    """Return a digest of what the tokens are made from: rows, tokenizer, template, technique and TRL's version."""
    digest = hashlib.sha256()
    for path in (spec.train, spec.validation):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    tokenizer = base.tokenizer
    made_with = (
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


def _rows(path: Path, technique: Technique) -> Dataset:
    """Return the rows for TRL; if only completions are learned, a conversation's last turn is one."""
    rows = read_prepared(path)
    last_turn = isinstance(technique, SFT) and technique.completion_only and not technique.assistant_only
    if last_turn and "messages" in rows[0]:
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    return Dataset.from_list(rows)
