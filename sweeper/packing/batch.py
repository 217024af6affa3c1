"""From the rows of several slots to one batch of documents laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.documents import Documents
from sweeper.packing.layers import Masks, Segment

IGNORED = -100
"""The label of a token that carries no loss."""

Row = dict[str, Any]
"""A row as TRL prepares it: ``input_ids``, ``labels`` and, where it is packed, ``seq_lengths``."""


@dataclass(frozen=True)
class Part:
    """Rows of one slot that pass through the model together.

    Attributes:
        adapter: The slot's weights.
        rows: At least one row.
        generator: Draws dropout masks; None outside of training.
        flat: Whether training alone would lay the rows end to end as well, as TRL does with packed ones.
    """

    adapter: SlotAdapter
    rows: Sequence[Row]
    generator: torch.Generator | None = None
    flat: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(row["input_ids"]) for row in self.rows)

    def masks(self, device: torch.device) -> Masks | None:
        """Return what draws the dropout masks, in the shape that the rows have when they are trained alone."""
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
    """The rows of several parts, joined.

    Attributes:
        input_ids: Shape (1, tokens).
        documents: Where each document is.
        segments: Which tokens are whose, one a part.
        predicting: Places of the tokens that predict one with a loss, shape (predictions,).
        targets: The tokens they are to predict, shape (predictions,).
        predictions: How many predictions each part has.
    """

    input_ids: torch.Tensor
    documents: Documents
    segments: list[Segment]
    predicting: torch.Tensor
    targets: torch.Tensor
    predictions: list[int]


def join(parts: Sequence[Part], device: torch.device) -> JointBatch:
    """Lay the rows of all parts end to end."""
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


def loss_tokens(row: Row) -> int:
    """Return how many tokens of a row carry a loss; the first of a document has nothing before it: none."""
    return len(_predicting(row, 0))


def _predicting(row: Row, offset: int) -> list[int]:
    """Return the places, from ``offset`` on, of the tokens before one with a label."""
    labels = row.get("labels") or row["input_ids"]
    firsts = {0}
    place = 0
    for length in row.get("seq_lengths") or ():
        firsts.add(place)
        place += length
    return [offset + place - 1 for place, label in enumerate(labels) if label != IGNORED and place not in firsts]
