"""A comparison in words: who is best, by how much, whether it is more than chance, at what cost, on which examples."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.config.evaluation import direction
from sweeper.evaluation.compare.side_by_side import Against, SideBySide
from sweeper.evaluation.comparison import FEWEST_EXAMPLES

NAMED_EXAMPLES = 10
"""Numbers of examples that a sentence lists."""

_NOTABLE = 1.1
"""A cost is told where it is a tenth above or below the reference's."""

CORRECTION = (
    "Intervals are of each comparison alone. The p-values are of the paired bootstrap, and corrected for the number of "
    "subjects by Holm's method; below 0.05 a difference is called better or worse."
)


@dataclass(frozen=True)
class Conclusion:
    """What the numbers say.

    Attributes:
        headline: The whole in a sentence.
        sentences: The rest, in the order of their weight.
    """

    headline: str
    sentences: tuple[str, ...]


def conclude(found: SideBySide) -> Conclusion:
    """Put a comparison into words; every word follows from its numbers."""
    metric = found.metric
    scores = {} if metric is None else dict(found.scores[metric])
    if metric is None or not scores:
        return Conclusion(
            "None of these was scored on the test split, so nothing can be said of which is better.",
            ("A study scores its best trials when its search has ended.", *_costs(found, found.others[0].key)),
        )
    larger = direction(metric) == "maximize"
    best = sorted(scores, key=lambda key: -scores[key].score if larger else scores[key].score)[0]
    sentences = [_best(found, metric, best)]
    sentences += [_held_against(found, key, against) for key, against in found.against[metric].items()]
    sentences += [f"{key} cannot be compared in pairs: {why}." for key, why in found.unpaired.items()]
    for row in found.origins:
        if row.differs and (row.name in ("base model hash", "preset") or row.name.startswith("data hash")):
            sentences.append(f"They differ in {row.name}.")
    if best != found.reference:
        sentences += _costs(found, best)
    sentences += [_examples(found, key) for key in found.examples]
    return Conclusion(_headline(found, metric, best), tuple(sentences))


def _headline(found: SideBySide, metric: str, best: str) -> str:
    against = found.against[metric]
    better = [key for key, one in against.items() if one.verdict == "better"]
    worse = [key for key, one in against.items() if one.verdict == "worse"]
    reference = found.reference
    count = len(found.subject(reference).examples)
    if not against:
        return f"{best} has the best {metric}, but nothing could be compared with {reference} in pairs."
    if count < FEWEST_EXAMPLES:
        return f"With {count} examples nothing can be told from chance; at least {FEWEST_EXAMPLES} are needed."
    if best in better:
        also = [key for key in better if key != best]
        more = f"; so {'is' if len(also) == 1 else 'are'} {_listed(also)}" if also else ""
        return f"{best} is better than {reference} on {metric}, and it is more than chance{more}."
    if better:
        return f"{_listed(better)} {'is' if len(better) == 1 else 'are'} better than {reference} on {metric}."
    if len(worse) == len(against) and best == reference:
        return f"{reference} is the best on {metric}: whatever was compared with it is worse, and not by chance."
    if best == reference:
        return f"{reference} has the best {metric}; nothing compared with it is better."
    return f"{best} has the best {metric}, but its lead over {reference} cannot be told from chance."


def _best(found: SideBySide, metric: str, best: str) -> str:
    score = found.scores[metric][best]
    interval = (
        "" if score.low is None or score.high is None else f" (95 % interval {score.low:.3f} to {score.high:.3f})"
    )
    reference = found.scores[metric].get(found.reference)
    beside = "" if reference is None or best == found.reference else f"; {found.reference} has {reference.score:.3f}"
    return f"The best {metric} on the test split is {score.score:.3f}{interval}, of {best}{beside}."


def _held_against(found: SideBySide, key: str, against: Against) -> str:
    interval = against.difference.interval
    amount = f"{against.difference.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    few = len(found.subject(key).examples) < FEWEST_EXAMPLES
    chance = "of too few examples to tell" if few else "which cannot be told from chance"
    verdict = chance if against.verdict == "undecided" else against.verdict
    return f"{key} minus {found.reference}: {amount}, {verdict} (corrected p = {against.corrected_p:.3f})."


def _costs(found: SideBySide, key: str) -> list[str]:
    parts = []
    for row in found.costs:
        mine, theirs = row.values.get(key), row.values.get(found.reference)
        if mine and theirs and not 1 / _NOTABLE < mine / theirs < _NOTABLE:
            parts.append(f"{mine / theirs:.2g} times the {row.name} ({mine:.4g} against {theirs:.4g})")
    return [f"{key} has {_listed(parts)} of {found.reference}."] if parts else []


def _examples(found: SideBySide, key: str) -> str:
    one = found.examples[key]
    wins, losses = (_numbered(kind) for kind in (one.wins, one.losses))
    return (
        f"On single examples {key} does better than {found.reference} on {len(one.wins)}{wins}, worse on "
        f"{len(one.losses)}{losses}, and the same on {len(one.ties)}."
    )


def _numbered(indices: tuple[int, ...]) -> str:
    if not indices:
        return ""
    more = ", ..." if len(indices) > NAMED_EXAMPLES else ""
    return f" ({', '.join(map(str, indices[:NAMED_EXAMPLES]))}{more})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
