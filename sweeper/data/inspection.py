"""Statistics of a split as training sees it: token lengths, truncation, and the variety of its answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from sweeper.config.technique import Technique
from sweeper.data.as_trained import TrainedRow, as_trained
from sweeper.data.rendering import Row
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError

COUNTED_ROWS = 2_000
"""Rows of a split whose tokens are counted: an evenly spaced sample of a larger split."""

_ANSWERS = ("completion", "chosen", "rejected", "reference")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Lengths:
    """Summary of lengths in tokens over the counted rows."""

    mean: float
    median: float
    p95: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        """Summarise at least one length."""
        ordered = sorted(lengths)
        return cls(fmean(ordered), median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1])


@dataclass(frozen=True)
class SplitView:
    """A split as training sees it.

    Attributes:
        rows: Number of rows.
        columns: Names of the rows' columns.
        counted: Indices of the rows whose tokens were counted.
        total: Lengths of whole rows before truncation; of a pair, of its longer passage.
        prompt: Lengths before the answer.
        answer: Lengths after the prompt.
        totals: The length of every counted row.
        cut: Indices of the counted rows that are truncated or dropped.
        dropped: Indices of the counted rows that are dropped.
        loss_tokens: Tokens with a loss before truncation.
        lost_loss_tokens: Of these, the tokens that are truncated or dropped.
        empty_answers: Rows with a blank answer.
        distinct_bigrams: Distinct share of the word pairs in the answers; None without any.
        type_token_ratio: Distinct share of the words in the answers; None without any.
    """

    rows: int
    columns: tuple[str, ...]
    counted: tuple[int, ...] = field(repr=False)
    total: Lengths
    prompt: Lengths
    answer: Lengths
    totals: tuple[int, ...] = field(repr=False)
    cut: tuple[int, ...] = field(repr=False)
    dropped: tuple[int, ...] = field(repr=False)
    loss_tokens: int
    lost_loss_tokens: int
    empty_answers: int
    distinct_bigrams: float | None
    type_token_ratio: float | None

    @property
    def truncated(self) -> float:
        """The share of the counted rows that are truncated or dropped."""
        return len(self.cut) / len(self.counted)

    @property
    def lost(self) -> float:
        """The share of the tokens with a loss that are truncated or dropped."""
        return self.lost_loss_tokens / self.loss_tokens if self.loss_tokens else 0.0


def inspect_split(rows: Sequence[Row], tokenizer: ModelTokenizer, technique: Technique) -> SplitView:
    """Return the statistics of a split under a technique.

    Raises:
        DataError: If there are no rows, or the chat template refuses one; names the row, from 1.
    """
    if not rows:
        raise DataError("the split has no rows")
    counted = evenly(len(rows))
    seen = [_seen(rows[number], number, tokenizer, technique) for number in counted]
    totals = [max(len(each.tokens) for each in row.passages) for row in seen]
    prompts = [max(each.prompt for each in row.passages) for row in seen]
    answers = [max(len(each.tokens) - each.prompt for each in row.passages) for row in seen]
    distinct, types = _variety([answer for number in counted for answer in answers_of(rows[number])])
    return SplitView(
        rows=len(rows),
        columns=tuple(rows[0]),
        counted=tuple(counted),
        total=Lengths.of(totals),
        prompt=Lengths.of(prompts),
        answer=Lengths.of(answers),
        totals=tuple(totals),
        cut=tuple(number for number, row in zip(counted, seen, strict=True) if row.cut),
        dropped=tuple(number for number, row in zip(counted, seen, strict=True) if row.dropped),
        loss_tokens=sum(each.loss_tokens for row in seen for each in row.passages),
        lost_loss_tokens=sum(
            each.loss_tokens if row.dropped else each.lost_loss_tokens for row in seen for each in row.passages
        ),
        empty_answers=sum(any(not answer.strip() for answer in answers_of(row)) for row in rows),
        distinct_bigrams=distinct,
        type_token_ratio=types,
    )


def evenly(rows: int) -> list[int]:
    """Return the indices of the rows to count: all, or ``COUNTED_ROWS`` evenly spaced ones."""
    if rows <= COUNTED_ROWS:
        return list(range(rows))
    return [index * rows // COUNTED_ROWS for index in range(COUNTED_ROWS)]


def answers_of(row: Row) -> list[str]:
    """Return the answers of a row: its completion, both of a pair, a conversation's last turn, or a plain text."""
    if "messages" in row:
        return [row["messages"][-1]["content"]]
    if "text" in row:
        return [row["text"]]
    found = (row[name] for name in _ANSWERS if name in row)
    return [answer if isinstance(answer, str) else answer[-1]["content"] for answer in found]


def _seen(row: Row, number: int, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    try:
        return as_trained(row, tokenizer, technique)
    except DataError as error:
        raise DataError(f"row {number + 1}: {error}") from error


def _variety(answers: Sequence[str]) -> tuple[float | None, float | None]:
    """Return distinct-2 (Li et al. 2016, arXiv:1510.03055) and the type-token ratio of texts."""
    words = [_WORD.findall(answer.casefold()) for answer in answers]
    bigrams = [pair for each in words for pair in pairwise(each)]
    single = [word for each in words for word in each]
    return _share(bigrams), _share(single)


def _share(found: Sequence[Any]) -> float | None:
    return len(set(found)) / len(found) if found else None
