"""One batch from the rows of several slots, concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sweeper.packing.adapter import Masks, Segment, SlotAdapter
from sweeper.packing.documents import Documents
from sweeper.training.ranks import IGNORED

TokenisedRow = dict[str, Any]
"""A row as TRL prepares it: ``input_ids``, ``labels`` and, where it is packed, ``seq_lengths``."""


@dataclass(frozen=True)
class Part:
    """Rows of one slot, at least one, that pass through the model together.

    Attributes:
        generator: Draws dropout masks; None outside of training.
        flat: Whether training alone would concatenate the rows as well, as TRL does with packed ones.
    """

    adapter: SlotAdapter
    rows: Sequence[TokenisedRow]
    generator: torch.Generator | None = None
    flat: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(row["input_ids"]) for row in self.rows)

    def masks(self, device: torch.device) -> Masks | None:
        """Return the source of dropout masks, in the shape of the rows when they are trained alone."""
        if self.generator is None:
            return None
        lengths = [len(row["input_ids"]) for row in self.rows]
        if self.flat or len(set(lengths)) == 1:
            shape = (1, sum(lengths)) if self.flat else (len(lengths), lengths[0])
            return Masks(self.generator, shape, None)
        longest = max(lengths)
        places = [torch.arange(length) + number * longest for number, length in enumerate(lengths)]
        return Masks(self.generator, (len(lengths), longest), torch.cat(places).to(device))


@dataclass(frozen=True)
class JointBatch:
    """The concatenated rows of several parts.

    Attributes:
        input_ids: Shape (1, tokens).
        documents: The place of each document.
        segments: The tokens of each part.
        predicting: Places of the tokens that predict one with a loss, shape (predictions,).
        targets: The tokens to predict, shape (predictions,).
        predictions: The number of predictions of each part.
    """

    input_ids: torch.Tensor
    documents: Documents
    segments: list[Segment]
    predicting: torch.Tensor
    targets: torch.Tensor
    predictions: list[int]


def join(parts: Sequence[Part], device: torch.device) -> JointBatch:
    """Concatenate the rows of all parts."""
    ids: list[int] = []
    lengths: list[int] = []
    predicting: list[int] = []
    segments, predictions = [], []
    for part in parts:
        begin, before = len(ids), len(predicting)
        for row in part.rows:
            predicting += _predicting(row, len(ids))
            ids += row["input_ids"]
            lengths += row.get("seq_lengths") or [len(row["input_ids"])]
        segments.append(Segment(part.adapter, slice(begin, len(ids)), part.masks(device)))
        predictions.append(len(predicting) - before)
    input_ids = torch.tensor([ids])
    places = torch.tensor(predicting, dtype=torch.long)
    return JointBatch(
        input_ids.to(device),
        Documents(lengths, device),
        segments,
        places.to(device),
        input_ids[0, places + 1].to(device),
        predictions,
    )


def loss_tokens(row: TokenisedRow) -> int:
    """Return how many tokens of a row carry a loss; the first of a document never does."""
    return len(_predicting(row, 0))


def _predicting(row: TokenisedRow, offset: int) -> list[int]:
    """Return the places, from ``offset`` on, of the tokens before one with a label."""
    labels = row.get("labels") or row["input_ids"]
    firsts = {0}
    place = 0
    for length in row.get("seq_lengths") or ():
        firsts.add(place)
        place += length
    return [offset + place - 1 for place, label in enumerate(labels) if label != IGNORED and place not in firsts]
