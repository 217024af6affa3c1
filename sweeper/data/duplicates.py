"""Duplicate rows: equal after normalisation, or nearly equal."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sweeper.data.formats import texts_of

NEAR = 0.8
"""Share of word triples (Jaccard) from which two rows are near duplicates."""

NEAR_WORDS = 2_000_000
"""Total words up to which near duplicates are searched for, in some ten seconds; in larger data, they are not."""

_BANDS, _IN_BAND = 16, 4
"""Of 64 hashes; a pair of similarity s shares a band with probability 1 - (1 - s^4)^16: 0.9998 at 0.8, 0.64 at 0.5."""

_PRIME = (1 << 31) - 1  # of the hash functions; products of two numbers below it do not overflow 64 bits
_SHINGLE_WORDS = 3

Place = tuple[str, int]
"""A row: its split and its number, from 0."""


@dataclass(frozen=True)
class Duplicates:
    """Duplicate rows.

    Attributes:
        exact: Groups of two or more rows with the same normalised text, the largest first.
        near: Pairs of other rows that share most of their word triples, with their similarity, the most similar first.
        looked_for_near: Whether near duplicates were searched for: not among more than ``NEAR_WORDS`` words.
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
        """Return how many rows of a split are near duplicates of one in another split (or in this one)."""
        found = set()
        for first, second, _ in self.near:
            for mine, theirs in ((first, second), (second, first)):
                if mine[0] == split and theirs[0] == other:
                    found.add(max(mine, theirs) if split == other else mine)
        return len(found)

    def places(self) -> dict[Place, str]:
        """Return every duplicate row with its kind, ``exact`` or ``near``."""
        kinds = {place: "near" for first, second, _ in self.near for place in (first, second)}
        return kinds | {place: "exact" for group in self.exact for place in group}


def find_duplicates(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Duplicates:
    """Find duplicate rows within each split and across splits.

    Near duplicates are found by MinHash over word triples (Broder 1997) with banding (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, chapter 3); each candidate pair is then compared in full.
    """
    texts = {(name, number): normalised(row) for name, rows in splits.items() for number, row in enumerate(rows)}
    groups: dict[str, list[Place]] = {}
    for place, text in texts.items():
        groups.setdefault(text, []).append(place)
    exact = sorted((tuple(group) for group in groups.values() if len(group) > 1), key=len, reverse=True)
    few = sum(text.count(" ") + 1 for text in groups) <= NEAR_WORDS
    near = _near({text: group[0] for text, group in groups.items()}) if few else ()
    return Duplicates(tuple(exact), near, few)


def normalised(row: Mapping[str, Any]) -> str:
    """Return the text of a row without differences in case, spaces and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text_of(row)).casefold().split())


def text_of(row: Mapping[str, Any]) -> str:
    """Return all text of a row, one part a line."""
    return "\n".join(texts_of(row))


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
    """Return the pairs of a bucket; in a large one each row with the next, as a thousand rows have half a million."""
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
    """Return the MinHash signature of each row: the minimum of every hash function over its shingles."""
    draw = np.random.default_rng(0)
    factors = draw.integers(1, _PRIME, size=(_BANDS * _IN_BAND, 1), dtype=np.uint64)
    offsets = draw.integers(0, _PRIME, size=(_BANDS * _IN_BAND, 1), dtype=np.uint64)
    return [
        ((np.fromiter(each, np.uint64, len(each)) * factors + offsets) % np.uint64(_PRIME)).min(axis=1)
        for each in shingles
    ]
