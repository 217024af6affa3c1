"""What hypothesis draws for a fuzz target: a file of its corpus with a few changes, or anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzzing import Target
from hypothesis import strategies as st

Edit = tuple[str, float, int, bytes]
"""What is done, where (as a part of the whole), over how many bytes, and with which words."""

KINDS = ("insert", "replace", "replace word", "delete", "repeat", "move", "line")


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Return inputs for a target; they shrink towards a seed with few changes."""
    seeds, words = [target.encode(path) for path in target.corpus], target.words()
    piece = st.one_of(
        st.sampled_from([word.encode() for word in words]),
        st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=8),
        st.integers(-(10**40), 10**40).map(lambda number: str(number).encode()),
        st.floats().map(lambda number: repr(number).encode()),
    )
    edit = st.tuples(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 40), piece)
    changed = st.builds(edited, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=6))
    reshaped = st.builds(
        lambda data, seed: target.reshape(data, Random(seed), words), st.sampled_from(seeds), st.integers(0, 2**32)
    )
    words_only = st.lists(piece, max_size=30).map(b" ".join)
    return st.one_of(changed, reshaped, reshaped, words_only, st.binary(max_size=200))


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a seed with changes."""
    for kind, place, length, piece in edits:
        data = _edited(data, kind, int(place * len(data)), length, piece)
    return data


def _edited(data: bytes, kind: str, at: int, length: int, piece: bytes) -> bytes:
    before, span, after = data[:at], data[at : at + length], data[at + length :]
    match kind:
        case "insert":
            return before + piece + span + after
        case "replace":
            return before + piece + after
        case "replace word":  # what stands between two marks
            rest = data[at:]
            end = next((index for index, byte in enumerate(rest) if byte in b' ,:"{}[]\n'), len(rest))
            return before + piece + rest[end:]
        case "delete":
            return before + after
        case "repeat":
            return before + span * 3 + after
        case "move":
            return after + before + span
        case _:  # a line of its own, as deep as the one before
            begin = data.rfind(b"\n", 0, at) + 1
            indent = len(data[begin:at]) - len(data[begin:at].lstrip(b" "))
            return data[:begin] + b" " * indent + piece + b"\n" + data[begin:]
