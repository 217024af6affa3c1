"""A comparison in words: the best subject, its lead, whether that is significant, its cost, and the examples."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.config.evaluation import direction
from sweeper.evaluation.compare.side_by_side import Against, SideBySide
from sweeper.evaluation.comparison import FEWEST_EXAMPLES

NAMED_EXAMPLES = 10
"""Examples that a sentence lists."""

_NOTABLE = 1.1
"""Costs are mentioned if they differ from the reference's by a factor of at least this."""

CORRECTION = (
    "Each interval is for one comparison on its own. The p-values come from the paired bootstrap, corrected by Holm's "
    "method for the number of subjects; below 0.05 a difference is called better or worse."
)


@dataclass(frozen=True)
class Conclusion:
    """A headline, and further sentences in order of importance."""

    headline: str
    sentences: tuple[str, ...]


def conclude(found: SideBySide) -> Conclusion:
    """Describe a comparison in words that follow from its numbers."""
    metric = found.metric
    scores = {} if metric is None else dict(found.scores[metric])
    if metric is None or not scores:
        return Conclusion(
            "None of these was scored on the test split, so they cannot be ranked.",
            ("A study scores its best trials once its search has ended.", *_costs(found, found.others[0].key)),
        )
    larger = direction(metric) == "maximize"
    best = min(scores, key=lambda key: -scores[key].score if larger else scores[key].score)
    sentences = [_best(found, metric, best)]
    sentences += [_held_against(found, key, against) for key, against in found.against[metric].items()]
    sentences += [f"No paired comparison is possible for {key}: {why}." for key, why in found.unpaired.items()]
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
        return f"{best} has the best {metric}, but no paired comparison with {reference} is possible."
    if count < FEWEST_EXAMPLES:
        return f"{count} examples are too few to tell a difference from chance; at least {FEWEST_EXAMPLES} are needed."
    if best in better:
        also = [key for key in better if key != best]
        more = f"; so {'is' if len(also) == 1 else 'are'} {_listed(also)}" if also else ""
        return f"{best} is significantly better than {reference} on {metric}{more}."
    if better:
        are = "is" if len(better) == 1 else "are"
        return f"{_listed(better)} {are} significantly better than {reference} on {metric}."
    if len(worse) == len(against) and best == reference:
        return f"{reference} is the best on {metric}: all others are significantly worse."
    if best == reference:
        return f"{reference} has the best {metric}; none of the others is better."
    return f"{best} has the best {metric}, but its lead over {reference} is not significant."


def _best(found: SideBySide, metric: str, best: str) -> str:
    score = found.scores[metric][best]
    interval = (
        "" if score.low is None or score.high is None else f" (95 % interval {score.low:.3f} to {score.high:.3f})"
    )
    reference = found.scores[metric].get(found.reference)
    beside = "" if reference is None or best == found.reference else f"; {found.reference} has {reference.score:.3f}"
    return f"The best {metric} on the test split is {score.score:.3f}{interval}, by {best}{beside}."


def _held_against(found: SideBySide, key: str, against: Against) -> str:
    interval = against.difference.interval
    amount = f"{against.difference.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    few = len(found.subject(key).examples) < FEWEST_EXAMPLES
    chance = "too few examples to tell" if few else "not significant"
    verdict = chance if against.verdict == "undecided" else against.verdict
    return f"{key} minus {found.reference}: {amount}, {verdict} (corrected p = {against.corrected_p:.3f})."


def _costs(found: SideBySide, key: str) -> list[str]:
    parts = []
    for row in found.costs:
        mine, theirs = row.values.get(key), row.values.get(found.reference)
        if mine and theirs and not 1 / _NOTABLE < mine / theirs < _NOTABLE:
            parts.append(f"{mine / theirs:.2g} times the {row.name} ({mine:.4g} vs. {theirs:.4g})")
    return [f"{key} has {_listed(parts)} of {found.reference}."] if parts else []


def _examples(found: SideBySide, key: str) -> str:
    one = found.examples[key]
    wins, losses = (_numbered(kind) for kind in (one.wins, one.losses))
    return (
        f"Of the examples, {key} does better than {found.reference} on {len(one.wins)}{wins}, worse on "
        f"{len(one.losses)}{losses}, and equally well on {len(one.ties)}."
    )


def _numbered(indices: tuple[int, ...]) -> str:
    if not indices:
        return ""
    more = ", ..." if len(indices) > NAMED_EXAMPLES else ""
    return f" ({', '.join(map(str, indices[:NAMED_EXAMPLES]))}{more})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
