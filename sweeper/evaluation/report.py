"""The final report as Markdown: scores, differences, the winner and why, and texts side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sweeper.evaluation.comparison import Comparison, Difference
from sweeper.evaluation.intervals import Interval
from sweeper.evaluation.scores import MetricScore, Scores

LONGEST_TEXT = 400
"""Characters of a text that are shown."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$@:])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JOINERS = "\u200c\u200d"  # invisible, but words of Persian and Hindi, and emoji, are written with them


def markdown_report(
    title: str, candidates: Mapping[str, Scores], base: Scores, comparison: Comparison, examples: int
) -> str:
    """Return the report of the final comparison.

    Args:
        title: Heading, for example the study's name.
        candidates: Scores by the candidate's name, in validation order.
        base: Scores of the base model without adapter.
        comparison: Of these candidates to this base.
        examples: How many generated texts to show side by side.
    """
    sections = [
        f"# {escape(title)}",
        _verdict(comparison),
        "## Scores",
        _scores_table(candidates, base, comparison),
        _notes(base),
        "## How the winner was found",
        _challenges(candidates, comparison),
    ]
    texts = _side_by_side(base, candidates[comparison.winner], comparison, examples)
    if texts:
        sections += ["## Generated texts", texts]
    return "\n\n".join(sections) + "\n"


def escape(text: str, longest: int = LONGEST_TEXT) -> str:
    r"""Return any text as one line that Markdown and HTML show as it is, in a table cell too.

    Line ends become ``<br>``; control characters, and invisible ones that turn the writing direction, become their
    escapes, such as ``\x1b``; what is beyond ``longest`` characters is left out.
    """
    shown = text if len(text) <= longest else text[:longest] + "…"
    lines = shown.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "<br>".join(_MARKDOWN.sub(r"\\\1", _visible(line).translate(_ENTITIES)) for line in lines)


def pick_examples(base: MetricScore, winner: MetricScore, count: int) -> list[int]:
    """Return the examples to show: a mix of those the winner does better, worse and equally well.

    The kinds take turns, so that the rare losses are seen beside the many gains; where the kinds have room the
    examples are spread over the data. The order is that of the data.
    """
    gains = [w - b for w, b in zip(winner.examples, base.examples, strict=True)]
    kinds = [
        [i for i, gain in enumerate(gains) if gain > 0],
        [i for i, gain in enumerate(gains) if gain < 0],
        [i for i, gain in enumerate(gains) if gain == 0 and winner.examples[i] > 0],
        [i for i, gain in enumerate(gains) if gain == 0 and winner.examples[i] <= 0],
    ]
    queues = [_spread(kind, count) for kind in kinds]
    turns = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)]
    return sorted(turns[:count])


def _verdict(comparison: Comparison) -> str:
    found = comparison.to_base[comparison.winner][comparison.metric]
    winner, metric = escape(comparison.winner), f"`{comparison.metric}`"
    amount = f"{_signed(found.value)} {_interval(found.interval, signed=True)}"
    if comparison.beats_base:
        return f"**Winner: {winner}.** It is better than the base model on {metric}: {amount}."
    return (
        f"**Nothing beats the base model.** The best candidate is {winner}; its difference to the base on {metric} is "
        f"{amount}, {'worse than the base' if found.verdict == 'worse' else 'which may be chance'}."
    )


def _scores_table(candidates: Mapping[str, Scores], base: Scores, comparison: Comparison) -> str:
    header = ["model", *(f"{metric} | difference to base" for metric in base.metrics)]
    columns = 1 + 2 * len(base.metrics)
    rows = [_row(["base model", *(f"{_score(score)} | " for score in base.metrics.values())])]
    for name, scores in candidates.items():
        cells = [
            f"{_score(scores.metrics[metric])} | {_difference(comparison.to_base[name][metric])}"
            for metric in base.metrics
        ]
        shown = escape(name)
        rows.append(_row([f"**{shown}**" if name == comparison.winner else shown, *cells]))
    return "\n".join([_row(header), _row(["---"] * columns), *rows])


def _notes(base: Scores) -> str:
    score = next(iter(base.metrics.values()))
    count, level = len(score.examples), score.interval.level
    return (
        f"{count} test examples. In brackets: {level:.0%} bootstrap intervals; differences are paired, on the same "
        "examples. Scores are from 0 to 1, except eval_loss and perplexity, which are better when smaller."
    )


def _challenges(candidates: Mapping[str, Scores], comparison: Comparison) -> str:
    order = ", ".join(escape(name) for name in candidates)
    lines = [
        f"Candidates in their validation order: {order}. A later one takes the lead only where its paired difference "
        f"on `{comparison.metric}` to the one in the lead is beyond zero with its whole interval."
    ]
    for challenge in comparison.challenges:
        found = challenge.difference
        outcome = "takes the lead from" if found.verdict == "better" else "does not overturn"
        lines.append(
            f"- {escape(challenge.challenger)} {outcome} {escape(challenge.holder)}: "
            f"{_signed(found.value)} {_interval(found.interval, signed=True)}"
        )
    return "\n".join([lines[0], "", *lines[1:]]).rstrip()


def _side_by_side(base: Scores, winner: Scores, comparison: Comparison, count: int) -> str:
    if not base.predictions or not winner.predictions or count < 1:
        return ""
    metric = comparison.metric
    picked = pick_examples(base.metrics[metric], winner.metrics[metric], count)
    header = ["prompt", "reference", "base model", escape(comparison.winner)]
    rows = [
        _row([escape(t[i]) for t in (winner.prompts, winner.references, base.predictions, winner.predictions)])
        for i in picked
    ]
    return "\n".join([_row(header), _row(["---"] * len(header)), *rows])


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of the items at even distances; all of them where there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[turn * len(items) // count] for turn in range(count)]


def _visible(line: str) -> str:
    return "".join(
        character if character.isprintable() or character in _JOINERS else _code(character) for character in line
    )


def _code(character: str) -> str:
    return " " if character == "\t" else character.encode("unicode_escape").decode("ascii")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(score: MetricScore) -> str:
    return f"{_number(score.value)} {_interval(score.interval)}"


def _difference(found: Difference) -> str:
    return f"{_signed(found.value)} {_interval(found.interval, signed=True)} {found.verdict}"


def _interval(interval: Interval, *, signed: bool = False) -> str:
    show = _signed if signed else _number
    return f"[{show(interval.low)}, {show(interval.high)}]"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"
