"""The final report as Markdown: scores, differences, the winner and why, and generated texts side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sweeper.config.evaluation import UNBOUNDED, direction
from sweeper.evaluation.comparison import Comparison, Difference, named_bases
from sweeper.evaluation.goal import GoalResult, shown_count
from sweeper.evaluation.intervals import Interval
from sweeper.evaluation.scores import MetricScore, Scores

LONGEST_TEXT = 400
"""Characters of a text that are shown."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$@:])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JOINERS = "\u200c\u200d"  # invisible, but words of Persian and Hindi, and emoji, are written with them


def markdown_report(
    title: str,
    candidates: Mapping[str, Scores],
    base: Scores | Mapping[str, Scores],
    comparison: Comparison,
    examples: int,
    goal: GoalResult | None = None,
) -> str:
    """Return the report of the final comparison, with ``examples`` generated texts side by side.

    ``candidates`` are in validation order; for ``base`` and ``candidates`` see ``comparison.compare``.
    """
    bases = named_bases(base)
    own = bases[comparison.base_of[comparison.winner]]
    decided = goal is not None and goal.seeks_smallest
    asked = escape(str(goal)) if goal else ""
    sections = [
        f"# {escape(title)}",
        *([f"**{asked[:1].upper()}{asked[1:]}.**"] if asked else []),
        _verdict(comparison),
        "## Scores",
        _scores_table(candidates, bases, comparison),
        _notes(own),
        *(["## Size", _size_table(goal)] if goal and decided else []),
        "## How the winner was found",
        _by_goal(goal) if goal and decided else _challenges(candidates, comparison),
    ]
    texts = _side_by_side(own, candidates[comparison.winner], comparison, examples)
    if texts:
        sections += ["## Generated texts", texts]
    return "\n\n".join(sections) + "\n"


def escape(text: str, longest: int = LONGEST_TEXT) -> str:
    r"""Return any text as one line that Markdown and HTML show as it is, in a table cell too.

    Line ends become ``<br>``; control characters, and invisible ones that change the writing direction, become their
    escapes, such as ``\x1b``; text beyond ``longest`` characters is cut.
    """
    shown = text if len(text) <= longest else text[:longest] + "…"
    lines = shown.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "<br>".join(_MARKDOWN.sub(r"\\\1", visible(line).translate(_ENTITIES)) for line in lines)


def pick_examples(base: MetricScore, winner: MetricScore, count: int) -> list[int]:
    """Return the examples to show, in data order: a mix of those the winner does better, worse and equally well.

    The kinds take turns, so rare losses are seen beside the many gains; within a kind they are spread over the data.
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


def _scores_table(candidates: Mapping[str, Scores], bases: Mapping[str, Scores], comparison: Comparison) -> str:
    metrics = list(next(iter(bases.values())).metrics)
    header = ["model", *(f"{metric} | difference to base" for metric in metrics)]
    rows = [[escape(name), *(f"{_score(base.metrics[m])} | " for m in metrics)] for name, base in bases.items()]
    for name, scores in candidates.items():
        cells = [f"{_score(scores.metrics[m])} | {_difference(comparison.to_base[name][m])}" for m in metrics]
        shown = escape(name if len(bases) == 1 else f"{name}, on {comparison.base_of[name]}")
        rows.append([f"**{shown}**" if name == comparison.winner else shown, *cells])
    return _table(header, rows, 1 + 2 * len(metrics))


def _size_table(goal: GoalResult) -> str:
    """Show the candidates' sizes; the smallest that meets the goal comes first."""
    header = ["model", f"{goal.metric} on {goal.split}", "weights", "ms per token", "meets the goal"]
    rows = [
        [
            escape(f"trial {one.number}, on {one.model}"),
            _number(one.score),
            "" if one.parameters is None else shown_count(one.parameters),
            "" if one.latency_ms is None else f"{one.latency_ms:.3g}",
            "yes" if one.number in goal.meets else "no",
        ]
        for one in sorted(goal.contenders, key=lambda one: (one.number not in goal.meets, one.size))
    ]
    return _table(header, rows)


def _by_goal(goal: GoalResult) -> str:
    if goal.met:
        return "Of the candidates whose score meets the goal, the one with the fewest weights wins, then the quickest."
    return "No candidate meets the goal, so the best score wins."


def _notes(base: Scores) -> str:
    score = next(iter(base.metrics.values()))
    count, level = len(score.examples), score.interval.level
    unbounded = [name for name in base.metrics if name in UNBOUNDED]
    small = [name for name in base.metrics if direction(name) == "minimize"]
    return (
        f"{count} test examples. In brackets: {level:.0%} bootstrap intervals; differences are paired, on the same "
        f"examples. Scores are from 0 to 1{_except(unbounded)}; larger is better{_except(small)}."
    )


def _except(names: Sequence[str]) -> str:
    return f", except {' and '.join(names)}" if names else ""


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
    header = ["prompt", "reference", escape(comparison.base_of[comparison.winner]), escape(comparison.winner)]
    rows = [
        [escape(t[i]) for t in (winner.prompts, winner.references, base.predictions, winner.predictions)]
        for i in picked
    ]
    return _table(header, rows)


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of the items, at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[turn * len(items) // count] for turn in range(count)]


def visible(line: str) -> str:
    """Return a line with control characters, and invisible ones that change the writing direction, as escapes."""
    return "".join(
        character if character.isprintable() or character in _JOINERS else character.encode("unicode_escape").decode()
        for character in line.replace("\t", " ")
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int = 0) -> str:
    lines = [header, ["---"] * (columns or len(header)), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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
