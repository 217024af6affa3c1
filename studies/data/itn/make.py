"""Make the inverse-text-normalisation data set: spoken English numbers and their written form.

Run ``python make.py`` beside the data to write it again, byte for byte the same. Needs num2words.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from num2words import num2words  # type: ignore[import-untyped]

SEED = 20240607
MARKER = " =>"
Draw = Callable[[random.Random], tuple[str, str]]
"""Draws one number and returns how it is spoken and how it is written."""


@dataclass(frozen=True)
class NumberClass:
    """One class of numbers and how many rows of it each split holds."""

    name: str
    draw: Draw
    train: int
    validation: int
    test: int

    @property
    def rows(self) -> int:
        return self.train + self.validation + self.test


def spoken(number: int, to: str = "cardinal") -> str:
    """Return a number as it is said: no hyphens, no commas."""
    return str(num2words(number, to=to)).replace("-", " ").replace(",", "")


def any_size(generator: random.Random, digits: int) -> int:
    """Return a number of 1 to ``digits`` digits, every length equally likely but one digit rarer."""
    length = generator.choices(range(1, digits + 1), weights=[1, *[4] * (digits - 1)])[0]
    return generator.randrange(10 ** (length - 1), 10**length)


def cardinal(generator: random.Random) -> tuple[str, str]:
    """``three hundred and twelve`` is ``312``; ``one thousand and five`` is ``1,005``."""
    number = any_size(generator, digits=6)
    return spoken(number), f"{number:,}"


def large(generator: random.Random) -> tuple[str, str]:
    """``two million three hundred thousand and five`` is ``2,300,005``: round parts, as people say them."""
    millions = generator.randrange(1, 1000)
    thousands = generator.choice([0, generator.randrange(1, 10) * 100, generator.randrange(1, 1000)])
    units = generator.choice([0, 0, generator.randrange(1, 100), generator.randrange(1, 10) * 100])
    number = millions * 1_000_000 + thousands * 1_000 + units
    return spoken(number), f"{number:,}"


def ordinal(generator: random.Random) -> tuple[str, str]:
    """``forty second`` is ``42nd``; ``one thousand and first`` is ``1,001st``."""
    number = any_size(generator, digits=4)
    suffix = str(num2words(number, to="ordinal_num"))[-2:]
    return spoken(number, to="ordinal"), f"{number:,}{suffix}"


def year(generator: random.Random) -> tuple[str, str]:
    """``nineteen oh five`` is ``1905``; 2000 to 2009 are left out, since they are spoken like cardinals."""
    number = generator.choice([*range(1100, 2000), *range(2010, 2100)])
    return spoken(number, to="year"), str(number)


def decimal(generator: random.Random) -> tuple[str, str]:
    """``three point one four`` is ``3.14``; the last digit is never zero."""
    whole = generator.choice([0, generator.randrange(1, 10), generator.randrange(10, 1000)])
    digits = [generator.randrange(10) for _ in range(generator.randrange(3))] + [generator.randrange(1, 10)]
    words = f"{spoken(whole)} point {' '.join(spoken(digit) for digit in digits)}"
    return words, f"{whole}.{''.join(map(str, digits))}"


def money(generator: random.Random) -> tuple[str, str]:
    """``three hundred and twelve dollars and five cents`` is ``$312.05``; whole dollars have no cents."""
    dollars = generator.choices([0, any_size(generator, digits=4)], weights=[1, 9])[0]
    cents = generator.choices([0, generator.randrange(1, 100)], weights=[1, 3])[0]
    parts = [
        f"{spoken(amount)} {unit if amount == 1 else unit + 's'}"
        for amount, unit in ((dollars, "dollar"), (cents, "cent"))
        if amount
    ] or ["zero dollars"]
    return " and ".join(parts), f"${dollars:,}.{cents:02d}" if cents else f"${dollars:,}"


def percent(generator: random.Random) -> tuple[str, str]:
    """``twelve point five percent`` is ``12.5%``."""
    whole, tenth = generator.randrange(100), generator.randrange(10)
    fraction = f" point {spoken(tenth)}" if tenth else ""
    return f"{spoken(whole)}{fraction} percent", f"{whole}.{tenth}%" if tenth else f"{whole}%"


CLASSES = (
    NumberClass("cardinal", cardinal, train=500, validation=50, test=75),
    NumberClass("money", money, train=400, validation=40, test=60),
    NumberClass("ordinal", ordinal, train=300, validation=30, test=45),
    NumberClass("year", year, train=250, validation=25, test=40),
    NumberClass("decimal", decimal, train=250, validation=25, test=40),
    NumberClass("large", large, train=150, validation=15, test=20),
    NumberClass("percent", percent, train=150, validation=15, test=20),
)


def distinct(number_class: NumberClass, generator: random.Random) -> list[dict[str, str]]:
    """Draw as many rows as the class needs; within a class the written form is the value, so none repeats."""
    drawn: dict[str, str] = {}
    while len(drawn) < number_class.rows:
        words, written = number_class.draw(generator)
        drawn.setdefault(written, words)
    return [
        {"prompt": words + MARKER, "completion": " " + written, "class": number_class.name}
        for written, words in drawn.items()
    ]


def make_splits(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each split, shuffled, each number of a class in one split only."""
    generator = random.Random(seed)
    splits: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for number_class in CLASSES:
        rows = distinct(number_class, generator)
        generator.shuffle(rows)
        held_out = number_class.validation + number_class.test
        splits["validation"] += rows[: number_class.validation]
        splits["test"] += rows[number_class.validation : held_out]
        splits["train"] += rows[held_out:]
    for rows in splits.values():
        generator.shuffle(rows)
    assert_sound(splits)
    return splits


def mistaken(written: str, generator: random.Random) -> str:
    """Return a number with one digit misheard; its form and its length stay as they are."""
    places = [place for place, character in enumerate(written) if character.isdigit()]
    place = generator.choice(places)
    others = [digit for digit in "0123456789" if digit != written[place] and (digit != "0" or place != places[0])]
    return written[:place] + generator.choice(others) + written[place + 1 :]


def make_preferences(splits: dict[str, list[dict[str, str]]], seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return each split as pairs: the right number is preferred to one with a digit misheard."""
    generator = random.Random(seed)
    return {
        name: [
            {"prompt": row["prompt"], "chosen": row["completion"], "rejected": mistaken(row["completion"], generator)}
            for row in rows
        ]
        for name, rows in splits.items()
    }


RANKED = {"train": 400, "validation": 100, "test": 200}
"""Rows of each split whose answers people ranked."""


def make_rankings(splits: dict[str, list[dict[str, str]]], seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Return a part of each split as pairs: the number alone is ranked above what a model says that hardly knows it.

    The answer below is, one as often as the other, the number with a digit misheard, the words again, a sentence
    around the number, or the number and talk after it.
    """
    generator = random.Random(seed)
    return {name: [_ranking(row, generator) for row in rows[: RANKED[name]]] for name, rows in splits.items()}


def _ranking(row: dict[str, str], generator: random.Random) -> dict[str, str]:
    right = row["completion"]
    worse = (
        mistaken(right, generator),
        f" {row['prompt'].removesuffix(' =>')}",
        f" The number is{right}.",
        f"{right}\n\nThis is the number",
    )
    return {"prompt": row["prompt"], "chosen": right, "rejected": generator.choice(worse)}


def assert_sound(splits: dict[str, list[dict[str, str]]]) -> None:
    """Raise AssertionError if a number of a class, or a prompt, is in the data more than once."""
    rows = [row for split in splits.values() for row in split]
    for key in (("class", "completion"), ("prompt",)):
        counts = Counter(tuple(row[column] for column in key) for row in rows)
        repeated = [value for value, count in counts.items() if count > 1]
        if repeated:
            raise AssertionError(f"the same {' and '.join(key)} more than once: {repeated[:5]}")


def write(folder: Path) -> None:
    """Write each split to ``folder``, and as pairs: ``train.jsonl``, ``preferences-train.jsonl``, ``rankings-...``."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = make_splits()
    pairs = {f"preferences-{name}": rows for name, rows in make_preferences(splits).items()}
    rankings = {f"rankings-{name}": rows for name, rows in make_rankings(splits).items()}
    for name, rows in {**splits, **pairs, **rankings}.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_bytes("".join(lines).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    write(parser.parse_args().out)
