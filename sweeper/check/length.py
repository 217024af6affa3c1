"""Sections on the length of trials: optimizer steps at the corners of the space, and tokens per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.check import Section
from sweeper.config.parameters import step_count, warmup
from sweeper.config.parameters import steps as count_steps
from sweeper.config.space import Space, ranges_of
from sweeper.config.technique import SFT
from sweeper.data.files import Row
from sweeper.data.formats import is_chat
from sweeper.data.inspection import evenly
from sweeper.data.tokens import TokenCounter
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
    counter = TokenCounter(folder)
    train = study.splits.train
    rows = [train[index] for index in evenly(len(train))]
    lengths = counter.lengths(rows)
    cut = sum(length > most for length in lengths)
    masked = _masked(study, counter, rows) if cut else 0
    if study.config.technique.drops_long:
        cut, masked = 0, cut
    figures: dict[str, Any] = {
        "rows_counted": len(rows),
        "mean": sum(lengths) / len(lengths),
        "longest": max(lengths),
        "max_length": most,
        "truncated": cut / len(rows),
        "dropped": masked / len(rows),
    }
    if masked == len(rows):
        long = study.config.technique.drops_long
        excess = "every training row is longer than" if long else "the prompt of every training row fills"
        raise DataError(
            f"data: {excess} technique.max_length ({most} tokens), so there is nothing left to learn; raise it (the "
            f"longest row has {max(lengths):,} tokens), or shorten the rows"
        )
    several = "" if len(rows) == len(study.splits.train) else f" of {len(rows):,} evenly spaced rows"
    lines = (
        f"mean {figures['mean']:.0f}, longest {max(lengths):,}{several}; max_length {most:,}",
        f"{figures['truncated']:.1%} of the rows are truncated, {figures['dropped']:.1%} {_why_dropped(study)}",
    )
    warnings = [*_cut_warnings(figures, _why_dropped(study)), *_text_warnings(study, model, counter, rows)]
    kept = [min(length, most) for length in lengths]
    section = Section("tokens", lines, tuple(warnings), figures)
    return Tokens(sum(kept) / len(kept), max(kept), section)


def _masked(study: ResolvedStudy, counter: TokenCounter, rows: list[Row]) -> int:
    """Return the number of rows without a token that contributes to the loss after truncation; they are dropped."""
    technique = study.config.technique
    if study.splits.kind == "text" or (isinstance(technique, SFT) and not technique.completion_only):
        return 0
    if study.splits.kind == "messages":
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    return sum(length >= technique.max_length for length in counter.prompt_lengths(rows))


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


def _text_warnings(study: ResolvedStudy, model: ResolvedModel, counter: TokenCounter, rows: list[Row]) -> list[str]:
    warnings = []
    special = counter.special_tokens_in(rows)
    if special:
        warnings.append(
            f"train: {len(special):,} of {len(rows):,} rows contain a special token of the model in their text (first: "
            f"row {special[0] + 1} of those counted), which the model may read as the end of a turn"
        )
    if is_chat(study.splits.kind) and not counter.has_chat_template:
        warnings.append("the data are chats, but the model has no chat template: turns are joined without markers")
    positions = model.facts.max_positions if model.facts else None
    extra = max(adapter.extra_tokens for adapter in study.config.variants(study.space.space))
    most = study.config.technique.max_length + extra
    if positions is not None and most > positions:
        virtual = f" with {extra:,} virtual tokens" if extra else ""
        warnings.append(
            f"max_length {most - extra:,}{virtual} exceeds the {positions:,} positions that the model supports"
        )
    return warnings
