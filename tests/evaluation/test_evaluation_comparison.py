"""Who wins, who beats the base, and what the report says of it."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from sweeper.errors import DataError
from sweeper.evaluation.comparison import compare, difference, paired_difference
from sweeper.evaluation.report import escape, markdown_report, pick_examples
from sweeper.evaluation.scores import Scores, metric_score


def scores_of(right, losses=None, texts=None):
    """Scores of a system that has these examples right."""
    statistics = np.array(right, dtype=float).reshape(-1, 1)
    metrics = {"exact_match": metric_score("exact_match", statistics)}
    if losses is not None:
        pairs = np.stack([np.array(losses, dtype=float) * 5, np.full(len(right), 5.0)], axis=1)
        metrics["perplexity"] = metric_score("perplexity", pairs)
    names = tuple(f"prompt {i}" for i in range(len(right)))
    answers = tuple(texts or (f"answer {i}" if hit else "wrong" for i, hit in enumerate(right)))
    return Scores(metrics, names, tuple(f"answer {i}" for i in range(len(right))), answers)


def share(count, hits):
    return [1.0] * hits + [0.0] * (count - hits)


BASE = scores_of(share(100, 10))


def test_a_clear_gain_beats_the_base():
    found = compare({"trial 3": scores_of(share(100, 80))}, BASE, "exact_match")
    to_base = found.to_base["trial 3"]["exact_match"]
    assert found.winner == "trial 3" and found.beats_base and found.challenges == ()
    assert to_base.value == pytest.approx(0.7) and to_base.verdict == "better"
    assert 0.55 < to_base.interval.low < 0.7 < to_base.interval.high < 0.85


def test_noise_overturns_nothing():
    first = scores_of(share(100, 80))
    slightly_better = scores_of([0.0, *share(99, 82)])
    found = compare({"first": first, "second": slightly_better}, BASE, "exact_match")
    assert slightly_better.metrics["exact_match"].value > first.metrics["exact_match"].value
    assert found.winner == "first"
    assert found.challenges[0].difference.verdict == "undecided"


def test_a_clearly_better_later_candidate_takes_the_lead_and_is_then_the_one_to_beat():
    candidates = {
        "a": scores_of(share(100, 30)),
        "b": scores_of(share(100, 70)),
        "c": scores_of(share(100, 50)),
    }
    found = compare(candidates, BASE, "exact_match")
    assert found.winner == "b"
    assert [(c.challenger, c.holder, c.difference.verdict) for c in found.challenges] == [
        ("b", "a", "better"),
        ("c", "b", "worse"),
    ]


def test_smaller_is_better_for_perplexity():
    rng = np.random.default_rng(0)
    losses = 3 + rng.random(50)
    base, lower = scores_of(share(50, 5), losses), scores_of(share(50, 5), losses - 1)
    found = compare({"low": lower}, base, "perplexity")
    assert found.beats_base and found.to_base["low"]["perplexity"].value < 0
    assert not compare({"high": base}, lower, "perplexity").beats_base
    assert compare({"high": base}, lower, "perplexity").to_base["high"]["perplexity"].verdict == "worse"


def test_five_examples_decide_nothing():
    few = difference(scores_of(share(5, 5)), scores_of(share(5, 0)), "exact_match")
    enough = difference(scores_of(share(6, 6)), scores_of(share(6, 0)), "exact_match")
    assert few.interval.excludes_zero() and few.verdict == "undecided"
    assert enough.verdict == "better"


def test_a_tie_with_the_base_does_not_beat_it():
    assert not compare({"same": BASE}, BASE, "exact_match").beats_base


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="bleu was not measured"):
        compare({"a": BASE}, BASE, "bleu")
    with pytest.raises(DataError, match="different examples"):
        compare({"a": scores_of(share(99, 10))}, BASE, "exact_match")
    with pytest.raises(ValueError, match="at least one candidate"):
        compare({}, BASE, "exact_match")


def test_a_comparison_is_plain_data():
    found = compare({"a": scores_of(share(100, 80)), "b": BASE}, BASE, "exact_match")
    assert json.loads(json.dumps(asdict(found)))["challenges"][0]["difference"]["verdict"] == "worse"


def test_the_report_shows_scores_winner_and_texts():
    losses = 3 + np.random.default_rng(0).random(100)
    base = scores_of(share(100, 10), losses)
    candidates = {"trial 3": scores_of(share(100, 80), losses - 1), "trial 7": scores_of(share(100, 78), losses - 1)}
    report = markdown_report("itn", candidates, base, compare(candidates, base, "exact_match"), 4)
    assert "**Winner: trial 3.** It is better than the base model on `exact_match`: +0.700 [+0.6" in report
    assert "| base model | 0.100 [" in report and "| **trial 3** | 0.800 [" in report
    assert "- trial 7 does not overturn trial 3: -0.020" in report
    assert "| prompt | reference | base model | trial 3 |" in report
    rows = [line for line in report.splitlines() if line.startswith("| prompt ") and "answer" in line]
    assert len(rows) == 4
    tables = [line for line in report.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in tables} == {3, 4}  # four columns of texts, five of scores


def test_the_report_says_so_when_nothing_beats_the_base():
    candidates = {"trial 3": scores_of(share(100, 12))}
    report = markdown_report("x", candidates, BASE, compare(candidates, BASE, "exact_match"), 0)
    assert "**Nothing beats the base model.**" in report and "which may be chance" in report
    assert "Generated texts" not in report
    worse = {"trial 3": scores_of(share(100, 0))}
    assert "worse than the base" in markdown_report("x", worse, BASE, compare(worse, BASE, "exact_match"), 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("one\r\ntwo\nthree", "one<br>two<br>three"),
        ("<script>alert(1)</script>", r"&lt;script&gt;alert\(1\)&lt;/script&gt;"),
        ("[x](javascript:alert)", r"\[x\]\(javascript\:alert\)"),
        ("&lt;b&gt; `code` **bold**", r"&amp;lt;b&amp;gt; \`code\` \*\*bold\*\*"),
        ("\x1b[31mred\u202e", r"\\x1b\[31mred\\u202e"),
        ("tab\tend", "tab end"),
        ("naïve 日本 👩\u200d🔬", "naïve 日本 👩\u200d🔬"),
        ("x" * 500, "x" * 400 + "…"),
    ],
)
def test_texts_are_shown_as_they_are(text, expected):
    assert escape(text) == expected


def test_hostile_texts_stay_in_their_cells():
    nasty = "| <img src=x onerror=alert(1)> |\n\n# heading"
    texts = [nasty] * 10
    candidates = {"trial 3": scores_of(share(10, 9), texts=texts)}
    base = scores_of(share(10, 0), texts=texts)
    report = markdown_report("x", candidates, base, compare(candidates, base, "exact_match"), 10)
    body = report.split("## Generated texts")[1].strip().splitlines()
    assert len(body) == 12 and "<img" not in report and not any(line.startswith("# h") for line in body)


def test_examples_are_a_mix_in_the_order_of_the_data():
    base = scores_of([0, 0, 0, 0, 0, 0, 1, 1, 0, 0]).metrics["exact_match"]
    winner = scores_of([1, 1, 1, 1, 1, 1, 0, 1, 0, 0]).metrics["exact_match"]
    picked = pick_examples(base, winner, 4)
    assert picked == sorted(picked) and len(set(picked)) == 4
    kinds = {(base.examples[i], winner.examples[i]) for i in picked}
    assert kinds == {(0, 1), (1, 0), (1, 1), (0, 0)}
    assert pick_examples(base, winner, 99) == list(range(10))
    assert pick_examples(base, winner, 0) == []


def test_a_difference_of_a_corpus_metric_is_one_of_corpora_not_a_mean_of_differences():
    first, second = np.array([[1.0, 1.0]] + [[0.0, 10.0]] * 9), np.array([[0.0, 1.0]] + [[0.0, 10.0]] * 9)
    found = paired_difference(first, second, "wer")
    assert found.value == pytest.approx(1 / 91)  # the mean of the examples' differences would be 1 / 10
    assert found.interval.high < 0.1
