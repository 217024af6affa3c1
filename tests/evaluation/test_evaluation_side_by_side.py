"""What is said of a comparison follows from its numbers: winners, ties, losers, too few examples, other data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compared import GOOD, LIKE_GOOD, POOR, study, subject, trial

from sweeper.errors import UserError
from sweeper.evaluation.compare.side_by_side import holm, side_by_side
from sweeper.evaluation.compare.summary import conclude
from sweeper.evaluation.comparison import FEWEST_EXAMPLES, stored_difference
from sweeper.evaluation.intervals import paired_interval, paired_p_value
from sweeper.evaluation.metrics import load_metric

mean, perplexity = load_metric("exact_match").aggregate, load_metric("perplexity").aggregate


def test_holms_correction():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"alone": 0.03}) == {"alone": 0.03} and holm({}) == {}


def test_p_values_agree_with_the_intervals_they_come_from():
    rng = np.random.default_rng(1)
    decided = 0
    for shift in np.linspace(0, 0.6, 25):
        first, second = rng.normal(shift, 1, (60, 1)), rng.normal(0, 1, (60, 1))
        p = paired_p_value(first, second, mean)
        decided += p < 0.05
        assert (p < 0.05) == paired_interval(first, second, mean).excludes_zero() or abs(p - 0.05) < 0.003
        assert p == pytest.approx(paired_p_value(second, first, mean)), "either side"
    assert 0 < decided < 25
    assert paired_p_value(first, first, mean) == 1.0
    assert 0 < paired_p_value(first + 9, first, mean) < 0.001
    with pytest.raises(ValueError, match="the same examples"):
        paired_p_value(first, second[1:], mean)
    endless = np.array([[1e6, 1.0]] * 9)
    assert paired_p_value(endless, endless, perplexity) == 1.0, "infinite perplexities tell nothing"


def test_a_clear_winner_is_named_with_amount_cost_and_examples():
    winner, base = subject(3, GOOD, train_seconds=600.0), subject(1, POOR)
    found = side_by_side([winner, base], reference="itn:1")
    said = conclude(found)
    assert said.headline == "itn:3 is significantly better than itn:1 on exact_match."
    text = " ".join(said.sentences)
    assert "The best exact_match on the test split is 0.900" in text and "itn:1 has 0.200" in text
    assert "itn:3 minus itn:1: +0.700" in text and ", better (corrected p" in text
    assert "itn:3 has 10 times the training seconds (600 vs. 60) of itn:1." in text
    assert "does better than itn:1 on 35 (10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...), worse on 0" in text
    assert found.against["exact_match"]["itn:3"].difference == stored_difference(
        winner.examples, base.examples, "exact_match"
    )


def test_a_tie_cannot_be_told_from_chance():
    found = side_by_side([subject(1, [*GOOD[:-1], 0.0]), subject(2, LIKE_GOOD)])
    assert found.against["exact_match"]["itn:2"].verdict == "undecided"
    said = conclude(found)
    assert said.headline == "itn:1 has the best exact_match; none of the others is better."
    assert "not significant" in " ".join(said.sentences)
    other = side_by_side([subject(2, [1.0] * 46 + [0.0] * 4), subject(1, GOOD)], reference="itn:1")
    assert "its lead over itn:1 is not significant" in conclude(other).headline


def test_what_is_worse_is_said_to_be():
    found = side_by_side([subject(1, GOOD), subject(2, POOR), subject(None, [0.0] * 50)])
    assert {one.verdict for one in found.against["exact_match"].values()} == {"worse"}
    assert "all others are significantly worse" in conclude(found).headline


def test_few_examples_decide_nothing_however_clear_they_look():
    few = FEWEST_EXAMPLES - 1
    found = side_by_side([subject(1, [0.0] * few), subject(2, [1.0] * few)])
    assert found.against["exact_match"]["itn:2"].verdict == "undecided"
    assert conclude(found).headline.startswith(f"{few} examples are too few to tell")


def test_smaller_is_better_for_losses():
    losses = {"metrics": ("eval_loss",)}
    low, high = [0.5 + n % 5 / 10 for n in range(40)], [1.5 + n % 3 / 10 for n in range(40)]
    found = side_by_side([subject(1, high, **losses), subject(2, low, **losses)])
    assert found.metric == "eval_loss" and found.against["eval_loss"]["itn:2"].verdict == "better"
    assert len(found.examples["itn:2"].wins) == 40
    assert conclude(found).headline.startswith("itn:2 is significantly better than itn:1 on eval_loss")


def test_several_against_one_are_corrected():
    borderline = [1.0] * 33 + [0.0] * 17
    reference = subject(0, [1.0] * 27 + [0.0] * 23)
    alone = side_by_side([reference, subject(1, borderline)]).against["exact_match"]["itn:1"]
    others = [subject(n, [1.0] * 27 + [0.0] * 22 + [1.0]) for n in range(2, 8)]
    many = side_by_side([reference, subject(1, borderline), *others]).against["exact_match"]
    assert many["itn:1"].p == alone.p == alone.corrected_p
    assert many["itn:1"].corrected_p == pytest.approx(min(1.0, 7 * alone.p))
    assert all(one.corrected_p >= one.p for one in many.values())


def test_other_data_are_not_compared_in_pairs_and_the_reason_is_said():
    other = subject(5, GOOD, of=study("other", data="b", space={"preset": "guide"}))
    other = replace(other, examples=tuple(replace(e, prompt="another") for e in other.examples))
    found = side_by_side([subject(1, GOOD), other, subject(2, POOR)])
    assert "different examples" in found.unpaired["other:5"]
    assert set(found.against["exact_match"]) == set(found.examples) == {"itn:2"}
    assert found.scores["exact_match"]["other:5"].low is not None, "its own interval is still there"
    text = " ".join(conclude(found).sentences)
    assert "No paired comparison is possible for other:5" in text
    assert "They differ in preset." in text and "They differ in data hash, test." in text
    assert {row.name for row in found.origins if row.differs} >= {"study", "preset", "data hash, train"}


def test_one_without_scores_and_none_with():
    found = side_by_side([subject(1, GOOD), subject(2, [])])
    assert found.unpaired == {"itn:2": "itn:2 was not scored on the test split"}
    assert "no paired comparison with itn:1 is possible" in conclude(found).headline
    nothing = side_by_side([subject(1, []), subject(2, [], train_seconds=6.0)])
    assert nothing.metric is None and "cannot be ranked" in conclude(nothing).headline
    assert "0.1 times the training seconds" in " ".join(conclude(nothing).sentences)


def test_a_reference_without_scores_leaves_the_others_unpaired():
    found = side_by_side([subject(1, []), subject(2, GOOD), subject(3, POOR)])
    assert set(found.unpaired) == {"itn:2", "itn:3"} and found.metric == "exact_match"
    assert conclude(found).headline.startswith("itn:2 has the best exact_match")


def test_parameters_that_differ_are_told_apart_and_bare_models_have_none():
    found = side_by_side([subject(1, GOOD), subject(2, POOR), subject(None, POOR)])
    rows = {row.name: row for row in found.parameters}
    assert rows["learning_rate"].differs and not rows["trl.beta2"].differs
    assert set(rows["learning_rate"].values) == {"itn:1", "itn:2"}


def test_the_metric_can_be_chosen_and_must_be_there():
    both = {"metrics": ("exact_match", "token_f1")}
    pair = [subject(1, GOOD, **both), subject(2, POOR, **both)]
    assert side_by_side(pair, metric="token_f1").metric == "token_f1"
    with pytest.raises(UserError, match=r"no subject was scored with 'bleu'; there are exact_match, token_f1"):
        side_by_side(pair, metric="bleu")
    with pytest.raises(UserError, match="is not among the subjects"):
        side_by_side(pair, reference="itn:9")


def test_costs_that_nobody_has_are_left_out():
    found = side_by_side([subject(1, GOOD, adapter_bytes=3 * 1024**2), subject(2, POOR)])
    costs = {row.name: row.values for row in found.costs}
    assert costs["adapter in MiB"] == {"itn:1": 3.0, "itn:2": None}
    assert "peak memory in MiB" not in costs
    assert trial(1).peak_memory_bytes is None
