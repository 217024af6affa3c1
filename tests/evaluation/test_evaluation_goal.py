"""Whether a goal is met, by which candidate, and which are worth scoring."""

from __future__ import annotations

import pytest
from test_evaluation_comparison import scores_of, share

from sweeper.config.evaluation import EvaluationConfig
from sweeper.evaluation.comparison import compare
from sweeper.evaluation.goal import Contender, judge, to_score
from sweeper.evaluation.report import markdown_report

ACCURATE = EvaluationConfig(metric="exact_match", goal=0.8, objectives=("parameters", "latency"))
SMALL = Contender(0, "small", 0.7, 100, 5.0)
MIDDLE = Contender(1, "middle", 0.85, 200, 9.0)
QUICK = Contender(2, "middle", 0.9, 200, 8.0)
LARGE = Contender(3, "large", 0.95, 900, 20.0)


def test_the_smallest_that_meets_it_wins_and_the_quickest_of_equal_weights():
    found = judge(ACCURATE, [LARGE, MIDDLE, SMALL, QUICK], "test")
    assert found.meets == (2, 1, 3)
    assert (found.smallest, found.nearest, found.met, found.miss) == (2, 3, True, 0.0)
    assert "is trial 2 (0.9) on middle with 0.0M weights and 8 ms a token" in str(found)


def test_where_none_meets_it_the_nearest_is_said_with_what_it_misses():
    found = judge(ACCURATE.model_copy(update={"goal": 0.99}), [SMALL, LARGE], "test")
    assert (found.smallest, found.nearest, found.met) == (None, 3, False)
    assert found.miss == pytest.approx(0.04)
    assert "no model meets the goal: exact_match of at least 0.99" in str(found)
    assert "misses it by 0.04" in str(found)


def test_losses_are_to_be_small():
    config = EvaluationConfig(metric="eval_loss", goal=0.8)
    assert judge(config, [SMALL, MIDDLE], "validation").meets == (0,)
    missed = judge(config.model_copy(update={"goal": 0.5}), [SMALL], "validation")
    assert missed.miss == pytest.approx(0.2)
    assert str(missed).startswith("goal missed by 0.2: eval_loss of at most 0.5 on the validation split")


def test_no_goal_is_no_result():
    assert judge(EvaluationConfig(), [SMALL], "test") is None
    with pytest.raises(ValueError, match="at least one"):
        judge(ACCURATE, [], "test")


@pytest.mark.parametrize(("candidates", "expected"), [(1, [2]), (2, [2, 3]), (3, [2, 3, 1]), (9, [2, 3, 1, 0])])
def test_every_model_that_may_meet_it_is_scored_before_a_second_trial_of_one(candidates, expected):
    config = ACCURATE.model_copy(update={"candidates": candidates})
    assert to_score(config, [SMALL, MIDDLE, QUICK, LARGE]) == expected


def test_of_a_front_that_meets_nothing_the_best_are_scored():
    config = ACCURATE.model_copy(update={"goal": 1.0, "candidates": 2})
    assert to_score(config, [SMALL, MIDDLE, LARGE]) == [3, 1]


def test_each_candidate_is_compared_with_its_own_base_and_the_report_says_so():
    candidates = {"trial 0": scores_of(share(100, 80)), "trial 1": scores_of(share(100, 90))}
    bases = {"base model a": scores_of(share(100, 10)), "base model b": scores_of(share(100, 85))}
    base_of = {"trial 0": "base model a", "trial 1": "base model b"}
    found = compare(candidates, bases, "exact_match", base_of=base_of)
    assert [found.to_base[name]["exact_match"].value for name in candidates] == pytest.approx([0.7, 0.05])
    decided = compare(candidates, bases, "exact_match", base_of=base_of, winner="trial 0")
    assert (decided.winner, decided.beats_base, decided.challenges) == ("trial 0", True, ())
    goal = judge(ACCURATE, [Contender(0, "a", 0.8, 10), Contender(1, "b", 0.9, 90)], "test")
    report = markdown_report("x", candidates, bases, decided, 3, goal)
    assert report.splitlines()[2].startswith(r"**The smallest model that meets the goal \(exact\_match of at least 0.8")
    assert "| base model a | 0.100" in report and "| base model b | 0.850" in report
    assert "| **trial 0, on base model a** |" in report
    assert "| trial 0, on a | 0.800 | 0.0M |  | yes |" in report
    assert "fewest weights wins" in report
    assert "| prompt | reference | base model a | trial 0 |" in report
