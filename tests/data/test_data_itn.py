"""The shipped inverse-text-normalisation data: reproducible, disjoint, and short."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ITN = Path(__file__).parents[2] / "studies" / "data" / "itn"
SIZES = {"train": 2000, "validation": 200, "test": 300}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
    return {
        name: [json.loads(line) for line in (ITN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in SIZES
    }


def test_regenerating_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ITN / "make.py"), "--out", str(tmp_path)], check=True)
    for name in [*SIZES, *(f"{kind}-{name}" for kind in ("preferences", "rankings") for name in SIZES)]:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (ITN / f"{name}.jsonl").read_bytes()


def test_sizes_columns_and_classes(splits: dict[str, list[dict[str, str]]]) -> None:
    assert {name: len(rows) for name, rows in splits.items()} == SIZES
    rows = [row for split in splits.values() for row in split]
    assert {tuple(row) for row in rows} == {("prompt", "completion", "class")}
    assert all(row["prompt"].endswith(" =>") and row["completion"].startswith(" ") for row in rows)
    assert max(len(row["prompt"].split()) for row in rows) <= 20
    card = (ITN / "README.md").read_text(encoding="utf-8")
    counts = {name: Counter(row["class"] for row in split) for name, split in splits.items()}
    for number_class in counts["train"]:
        cells = " | ".join(str(counts[name][number_class]) for name in SIZES)
        assert f"| {number_class} | {cells} |" in card


def test_splits_are_disjoint_by_value(splits: dict[str, list[dict[str, str]]]) -> None:
    values = {name: {(row["class"], row["completion"]) for row in rows} for name, rows in splits.items()}
    assert {name: len(found) for name, found in values.items()} == SIZES
    assert not values["train"] & values["validation"]
    assert not values["train"] & values["test"]
    assert not values["validation"] & values["test"]


def test_every_example_of_the_card_is_in_the_data(splits: dict[str, list[dict[str, str]]]) -> None:
    card = (ITN / "README.md").read_text(encoding="utf-8")
    examples = set(re.findall(r"`([^`]+ =>)` \| `([^`]+)` \|", card))
    assert len(examples) == 7
    assert examples <= {(row["prompt"], row["completion"]) for split in splits.values() for row in split}


def test_pairs_prefer_the_right_number_to_one_with_a_single_digit_misheard(
    splits: dict[str, list[dict[str, str]]],
) -> None:
    for name, rows in splits.items():
        lines = (ITN / f"preferences-{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for row, pair in zip(rows, map(json.loads, lines), strict=True):
            assert list(pair) == ["prompt", "chosen", "rejected"]
            assert (pair["prompt"], pair["chosen"]) == (row["prompt"], row["completion"])
            different = [(a, b) for a, b in zip(pair["chosen"], pair["rejected"], strict=True) if a != b]
            assert len(different) == 1
            assert all(a.isdigit() and b.isdigit() for a, b in different)


def test_rankings_put_the_number_alone_above_what_else_is_said(splits: dict[str, list[dict[str, str]]]) -> None:
    for name, size in {"train": 400, "validation": 100, "test": 200}.items():
        lines = (ITN / f"rankings-{name}.jsonl").read_text(encoding="utf-8").splitlines()
        pairs = [json.loads(line) for line in lines]
        for row, pair in zip(splits[name][:size], pairs, strict=True):
            assert (pair["prompt"], pair["chosen"]) == (row["prompt"], row["completion"])
            assert pair["rejected"] != pair["chosen"]
        talk = Counter(pair["rejected"].startswith(pair["chosen"]) for pair in pairs)
        words = Counter(f"{pair['rejected'].strip()} =>" == pair["prompt"] for pair in pairs)
        sentences = Counter(pair["rejected"].startswith(" The number is") for pair in pairs)
        assert all(0.15 * size < found[True] < 0.4 * size for found in (talk, words, sentences))
