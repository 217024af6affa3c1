"""Sections on the length of trials: optimizer steps at the corners of the space, and tokens per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.check import Section
from sweeper.check.rows import row_warnings
from sweeper.config.parameters import step_count, warmup
from sweeper.config.parameters import steps as count_steps
from sweeper.config.space import Space, ranges_of
from sweeper.config.technique import SFT
from sweeper.data.as_trained import learned
from sweeper.data.inspection import evenly
from sweeper.data.rendering import Rendering, lengths, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.presets.rules import corner_values
from sweeper.study.resolve import ResolvedModel, ResolvedStudy


@dataclass(frozen=True)
class Corner:
    """A corner of the space in batch size and epochs, with its optimizer steps."""

    batch_size: int
    epochs: float
    steps: int
    warmup_steps: tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """Lengths of the training rows in tokens, truncated to ``max_length``."""

    mean: float
    longest: int
    section: Section


def corners(space: Space, train_rows: int) -> list[Corner]:
    """Return the optimizer steps and the shortest and longest warmup at each corner of batch size and epochs."""
    batches, epochs = (sorted(set(corner_values(space, name))) for name in ("batch_size", "epochs"))
    return [_corner(space, train_rows, int(batch), float(count)) for count in epochs for batch in batches]


def _corner(space: Space, train_rows: int, batch: int, epochs: float) -> Corner:
    total = count_steps(train_rows, batch, epochs)
    lengths = []
    if counted := ranges_of(space, "warmup_steps"):
        lengths = [warmup(total, int(value), None) for value in corner_values(space, "warmup_steps")]
    if not counted or ranges_of(space, "warmup_ratio"):  # another alternative of a choice may have a ratio
        lengths += [warmup(total, None, float(value)) for value in corner_values(space, "warmup_ratio")]
    return Corner(batch, epochs, total, (min(lengths), max(lengths)))


def steps(study: ResolvedStudy) -> Section:
    """Describe the optimizer steps at each corner of the space."""
    found = corners(study.space.space, len(study.splits.train))
    points = study.config.evaluation.points
    lines = tuple(
        f"batch size {corner.batch_size}, epochs {corner.epochs:g}: {step_count(corner.steps)}, "
        f"warmup {' to '.join(f'{count:,}' for count in dict.fromkeys(corner.warmup_steps))}"
        for corner in found
    )
    shortest = min(corner.steps for corner in found)
    warnings = []
    if shortest < points:
        warnings.append(
            f"evaluation.points is {points}, but the shortest trial has only {step_count(shortest)}: "
            "it is evaluated after each of them"
        )
    return Section("steps", lines, tuple(warnings), {"corners": [vars(corner) for corner in found]})


def tokens_section(counted: Mapping[str, Tokens]) -> Section:
    """Return the section on lengths in the tokens of every model, by name if there are several."""
    if len(counted) == 1:
        return next(iter(counted.values())).section
    sections = {name: found.section for name, found in counted.items()}
    return Section(
        "tokens",
        tuple(f"{name}: {line}" for name, section in sections.items() for line in section.lines),
        tuple(f"{name}: {warning}" for name, section in sections.items() for warning in section.warnings),
        {"models": {name: section.figures for name, section in sections.items()}},
    )


def tokens(study: ResolvedStudy, model: ResolvedModel) -> Tokens:
    """Describe the rows' lengths, and the rows that ``max_length`` truncates or leaves without tokens to learn.

    Raises:
        DataError: If no row has tokens left to learn, or the chat template refuses one.
        ModelError: If the tokenizer is broken.
    """
    most = study.config.technique.max_length
    folder = model.found.path
    if not (folder / "tokenizer.json").is_file():
        note = f"not counted: {folder} has no tokenizer.json, so its tokenizer is converted at load"
        return Tokens(most, most, Section("tokens", (note,)))
    tokenizer = ModelTokenizer.load(folder)
    train = study.splits.train
    rows = [train[index] for index in evenly(len(train))]
    counted = lengths(rows, tokenizer)
    cut = sum(length > most for length in counted)
    rendered = render(rows, tokenizer, "chosen" if "chosen" in rows[0] else "completion")
    masked = sum(_is_masked(study, row) for row in rendered) if cut else 0
    if study.config.technique.drops_long:
        cut, masked = 0, cut
    figures: dict[str, Any] = {
        "rows_counted": len(rows),
        "mean": sum(counted) / len(counted),
        "longest": max(counted),
        "max_length": most,
        "truncated": cut / len(rows),
        "dropped": masked / len(rows),
    }
    if masked == len(rows):
        long = study.config.technique.drops_long
        excess = "every training row is longer than" if long else "the prompt of every training row fills"
        raise DataError(
            f"data: {excess} technique.max_length ({most} tokens), so there is nothing left to learn; raise it (the "
            f"longest row has {max(counted):,} tokens), or shorten the rows"
        )
    several = "" if len(rows) == len(study.splits.train) else f" of {len(rows):,} evenly spaced rows"
    lines = (
        f"mean {figures['mean']:.0f}, longest {max(counted):,}{several}; max_length {most:,}",
        f"{figures['truncated']:.1%} of the rows are truncated, {figures['dropped']:.1%} {_why_dropped(study)}",
    )
    warnings = [*_cut_warnings(figures, _why_dropped(study)), *row_warnings(study, model, tokenizer, rows, rendered)]
    kept = [min(length, most) for length in counted]
    section = Section("tokens", lines, tuple(warnings), figures)
    return Tokens(sum(kept) / len(kept), max(kept), section)


def _is_masked(study: ResolvedStudy, row: Rendering) -> bool:
    """Return whether truncation leaves a row without a token that contributes to the loss; it is dropped."""
    technique = study.config.technique
    if isinstance(technique, SFT):
        return not any(learned(row, technique, completions=study.splits.kind != "text")[: technique.max_length])
    return len(row.prompt) >= technique.max_length


def _why_dropped(study: ResolvedStudy) -> str:
    return "are too long" if study.config.technique.drops_long else "have no completion left"


def _cut_warnings(figures: dict[str, Any], why: str) -> list[str]:
    warnings = []
    if figures["truncated"] > 0:
        warnings.append(
            f"{figures['truncated']:.1%} of the training rows are longer than max_length {figures['max_length']:,} and "
            f"are truncated; the longest has {figures['longest']:,} tokens"
        )
    if figures["dropped"] > 0:
        warnings.append(f"{figures['dropped']:.1%} of the training rows {why} and are dropped")
    return warnings
