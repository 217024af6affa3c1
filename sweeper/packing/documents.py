"""Attention within documents that are concatenated without padding.

All of a transformer but attention works on single tokens, so only attention separates the rows again. The model calls
it by the name ``sweeper_documents``, which its configuration holds during a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "sweeper_documents"


class Documents:
    """The documents of a joined batch.

    Attributes:
        starts: Offset of each document's first token.
        positions: Shape (tokens,): the position of every token in its own document.
        groups: The documents, grouped by length if padding all to the longest would double them.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.starts = [0, *accumulate(lengths)][:-1]
        self.positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
        uneven = len(lengths) * max(lengths) > 2 * sum(lengths)
        like: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            like.setdefault(length.bit_length() if uneven else 0, []).append(number)
        places = [
            torch.cat([torch.arange(self.starts[n], self.starts[n] + lengths[n]) for n in of]) for of in like.values()
        ]
        self.groups = [
            _Group([lengths[n] for n in of], place.to(device) if len(like) > 1 else None, device)
            for of, place in zip(like.values(), places, strict=True)
        ]
        self._order = torch.argsort(torch.cat(places)).to(device) if len(like) > 1 else None

    def together(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the groups' rows, (tokens, heads, width) each, in batch order, as (1, ...)."""
        joined = torch.cat(list(rows)) if self._order is not None else rows[0]
        return (joined if self._order is None else joined.index_select(0, self._order))[None]


class _Group:
    """Documents of similar lengths; ``tokens`` are their places in the joined batch, None for all."""

    def __init__(self, lengths: Sequence[int], tokens: torch.Tensor | None, device: torch.device) -> None:
        self.count, self.longest = len(lengths), max(lengths)
        self._tokens = tokens
        self._is_full = len(set(lengths)) == 1
        places = [torch.arange(length) + number * self.longest for number, length in enumerate(lengths)]
        self._places = torch.cat(places).to(device)

    def apart(self, joined: torch.Tensor) -> torch.Tensor:
        """Return (1, heads, tokens, width) as (documents, heads, longest, width), zero-padded at the end."""
        _, heads, _, width = joined.shape
        rows = joined[0].transpose(0, 1)
        if self._tokens is not None:
            rows = rows.index_select(0, self._tokens)
        if not self._is_full:
            rows = rows.new_zeros(self.count * self.longest, heads, width).index_copy(0, self._places, rows)
        return rows.reshape(self.count, self.longest, heads, width).transpose(1, 2)

    def rows(self, apart: torch.Tensor) -> torch.Tensor:
        """Return (documents, heads, longest, width) as (tokens, heads, width), without padding."""
        rows = apart.transpose(1, 2).reshape(self.count * self.longest, apart.shape[1], apart.shape[3])
        return rows if self._is_full else rows.index_select(0, self._places)


_current: Documents | None = None
"""The documents of the current pass; a model's own arguments do not reach the attention of every family."""


@contextmanager
def attending(model: PreTrainedModel, documents: Documents) -> Iterator[None]:
    """Restrict the model's attention to ``documents`` within a ``with`` block; not reentrant."""
    global _current
    config = model.config.get_text_config()
    former = config._attn_implementation
    _current = documents
    config._attn_implementation = NAME
    try:
        yield
    finally:
        _current = None
        config._attn_implementation = former


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each document, shape (1, tokens, heads, width), and no weights.

    ``query`` has the shape (1, heads, tokens, width), ``key`` and ``value`` (1, key heads, tokens, width);
    ``sliding_window`` counts the token itself; transformers makes no mask here. Padding comes last, so nothing attends
    to it.
    """
    # In half precision the backward pass of attention is several times slower on a CPU than in float32.
    wide_query, wide_key, wide_value = (
        part.float() if part.device.type == "cpu" else part for part in (query, key, value)
    )
    documents = _current
    if documents is None:
        raise RuntimeError(f"the attention {NAME!r} was called outside of a pass")
    rows = []
    for group in documents.groups:
        mask = _window(group.longest, sliding_window, query.device)
        output = scaled_dot_product_attention(
            group.apart(wide_query),
            group.apart(wide_key),
            group.apart(wide_value),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            is_causal=mask is None,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        rows.append(group.rows(output.to(query.dtype)))
    return documents.together(rows), None


def _window(longest: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return the attention mask if the window is shorter than the longest document, else None."""
    if sliding_window is None or sliding_window >= longest:
        return None
    place = torch.arange(longest, device=device)
    back = place[:, None] - place[None, :]
    return (back >= 0) & (back < sliding_window)


AttentionInterface.register(NAME, _attention)
