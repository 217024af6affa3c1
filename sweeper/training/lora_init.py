"""Beginnings of LoRA that need more than the adapter: the dense weights of a quantised base, or rows to train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import initialize_lora_eva_weights, replace_lora_weights_loftq

from sweeper.config.adapter import AnyAdapter

_ROWS = 8
"""Rows in a pass of EVA, the same on every machine, so that the directions it finds are."""


def initialise(adapter: AnyAdapter, model: Any, base_folder: Path, rows: Any, collate: Any) -> None:
    """Fill in the adapter's first weights where PEFT could not when it made them.

    Args:
        adapter: The trial's adapter.
        model: The base with the adapter on it.
        base_folder: The base's own files.
        rows: Tokenised training rows.
        collate: Makes a batch of some rows.
    """
    init = getattr(adapter, "init", None)
    if init == "loftq":
        replace_lora_weights_loftq(model, str(base_folder / "model.safetensors"))
    elif init == "eva":
        batches = Batches(rows, collate, model.device)
        initialize_lora_eva_weights(model, batches, show_progress_bar=False)


class Batches:
    """The rows in their order, collated, as often as they are asked for."""

    def __init__(self, rows: Any, collate: Any, device: torch.device) -> None:
        self._rows = rows
        self._collate = collate
        self._device = device

    def __len__(self) -> int:
        return -(-len(self._rows) // _ROWS)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(self._rows), _ROWS):
            some = [self._rows[index] for index in range(start, min(start + _ROWS, len(self._rows)))]
            batch = self._collate(some)
            yield {name: value.to(self._device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
