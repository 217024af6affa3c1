"""Rows that say the same: exactly, after normalisation, or nearly."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

NEAR = 0.8
"""Share of word triples (Jaccard) from which two rows are nearly the same."""

NEAR_ROWS = 5_000
"""Rows among which near duplicates are looked for; of more, they are not: it would take minutes."""

_BANDS, _IN_BAND = 16, 4
"""Of 64 hashes; a pair of similarity s shares a band with probability 1 - (1 - s^4)^16: 0.9998 at 0.8, 0.64 at 0.5."""

_PRIME = (1 << 31) - 1
"""Of the hash functions; products of two numbers below it do not overflow 64 bits."""
_SHINGLE_WORDS = 3

Place = tuple[str, int]
"""A row: its split and its number, from 0."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of rows that say the same.

    Attributes:
        exact: Groups of two or more rows whose normalised text is one, the largest first.
        near: Pairs of rows that share most of their words' triples, and are not exactly the same; with their
            similarity, the most similar first.
        looked_for_near: Whether there were few enough rows to look for near ones.
    """

    exact: tuple[tuple[Place, ...], ...]
    near: tuple[tuple[Place, Place, float], ...]
    looked_for_near: bool

    def repeated(self, split: str) -> int:
        """Return how many rows of a split repeat an earlier one of it."""
        return sum(count - 1 for group in self.exact if (count := Counter(name for name, _ in group)[split]) > 1)

    def shared(self, split: str, other: str) -> int:
        """Return how many rows of a split are also in another one."""
        names = [[name for name, _ in group] for group in self.exact]
        return sum(group.count(split) for group in names if other in group)

    def near_shared(self, split: str, other: str) -> int:
        """Return how many rows of a split are nearly the same as one of another split (or of this one)."""
        found = set()
        for first, second, _ in self.near:
            for mine, theirs in ((first, second), (second, first)):
                if mine[0] == split and theirs[0] == other:
                    found.add(max(mine, theirs) if split == other else mine)
        return len(found)

    def places(self) -> dict[Place, str]:
        """Return every row that has a double, with what kind it is."""
        kinds = {place: "near" for first, second, _ in self.near for place in (first, second)}
        return kinds | {place: "exact" for group in self.exact for place in group}


def find_duplicates(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Duplicates:
    """Find rows that say the same, within each split and across them.

    Near ones by MinHash over triples of words (Broder 1997), candidates by banding (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, chapter 3), each then compared in full.
    """
    texts = {(name, number): normalised(row) for name, rows in splits.items() for number, row in enumerate(rows)}
    groups: dict[str, list[Place]] = {}
    for place, text in texts.items():
        groups.setdefault(text, []).append(place)
    exact = sorted((tuple(group) for group in groups.values() if len(group) > 1), key=len, reverse=True)
    few = len(groups) <= NEAR_ROWS
    near = _near({text: group[0] for text, group in groups.items()}) if few else ()
    return Duplicates(tuple(exact), near, few)


def normalised(row: Mapping[str, Any]) -> str:
    """Return the text of a row without what does not change what it says: case, spaces, ways to write a character."""
    return " ".join(unicodedata.normalize("NFKC", text_of(row)).casefold().split())


def text_of(row: Mapping[str, Any]) -> str:
    """Return all text of a row, one part a line."""
    return "\n".join(part for value in row.values() for part in _parts(value))


def _parts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(message["content"]) for message in value]
    return [value] if isinstance(value, str) else []


def _near(places: Mapping[str, Place]) -> tuple[tuple[Place, Place, float], ...]:
    texts = list(places)
    shingles = [_shingles(text) for text in texts]
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for index, signature in enumerate(_signatures(shingles)):
        for band, part in enumerate(signature.reshape(_BANDS, _IN_BAND)):
            buckets.setdefault((band, part.tobytes()), []).append(index)
    pairs = {(first, second) for bucket in buckets.values() for first, second in _pairs(bucket)}
    found = []
    for first, second in pairs:
        similarity = len(shingles[first] & shingles[second]) / len(shingles[first] | shingles[second])
        if similarity >= NEAR:
            found.append((places[texts[first]], places[texts[second]], similarity))
    return tuple(sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1])))


def _pairs(bucket: list[int]) -> list[tuple[int, int]]:
    """Return the pairs of a bucket; of a large one each with its next: a thousand alike are no million pairs."""
    if len(bucket) > 30:
        return list(pairwise(bucket))
    return [(first, second) for place, first in enumerate(bucket) for second in bucket[place + 1 :]]


def _shingles(text: str) -> frozenset[int]:
    words = text.split()
    triples = {" ".join(words[at : at + _SHINGLE_WORDS]) for at in range(max(1, len(words) - _SHINGLE_WORDS + 1))}
    return frozenset(
        int.from_bytes(hashlib.blake2b(each.encode(), digest_size=8).digest()) % _PRIME for each in triples
    )


def _signatures(shingles: Sequence[frozenset[int]]) -> list[np.ndarray[Any, np.dtype[np.uint64]]]:
    """Return the smallest of every hash function over each row's shingles."""
    draw = np.random.default_rng(0)
    factors = draw.integers(1, _PRIME, size=(_BANDS * _IN_BAND, 1), dtype=np.uint64)
    offsets = draw.integers(0, _PRIME, size=(_BANDS * _IN_BAND, 1), dtype=np.uint64)
    return [
        ((np.fromiter(each, np.uint64, len(each)) * factors + offsets) % np.uint64(_PRIME)).min(axis=1)
        for each in shingles
    ]
