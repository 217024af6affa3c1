"""The bootstrap covers what it should, and pairs what belongs together."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sweeper.evaluation.intervals import Interval, paired_interval, score_interval
from sweeper.evaluation.metrics import load_metric


def mean(sums_RK, count):
    return sums_RK[:, 0] / count


def test_interval_of_a_mean_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    samples = rng.random((300, 60, 1)) < 0.7
    intervals = [score_interval(sample.astype(float), mean, seed=n) for n, sample in enumerate(samples)]
    covered = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.985


def test_interval_of_a_mean_is_about_as_wide_as_theory_says():
    values = np.random.default_rng(2).normal(size=(400, 1))
    interval = score_interval(values, mean)
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.08)
    assert interval.level == 0.95


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(3).random((50, 1))
    assert score_interval(values, mean, seed=5) == score_interval(values, mean, seed=5)
    assert score_interval(values, mean, seed=5) != score_interval(values, mean, seed=6)


def test_pairing_sees_a_small_gain_that_unpaired_intervals_hide():
    rng = np.random.default_rng(4)
    base = rng.random((200, 1))
    better = base + 0.02 + rng.normal(scale=0.02, size=(200, 1))
    assert paired_interval(better, base, mean).low > 0
    assert score_interval(better, mean).low < score_interval(base, mean).high  # alone they overlap


def test_paired_interval_of_equal_systems_holds_zero_about_95_times_in_100():
    rng = np.random.default_rng(5)
    held = []
    for seed in range(200):
        base, other = (rng.random((60, 1)) < 0.5).astype(float), (rng.random((60, 1)) < 0.5).astype(float)
        held.append(not paired_interval(other, base, mean, seed=seed).excludes_zero())
    assert 0.89 <= np.mean(held) <= 0.99


def test_corpus_bleu_is_resampled_as_a_corpus():
    rng = np.random.default_rng(6)
    words = np.array(["red", "green", "blue", "one", "two", "three", "four", "five", "six", "seven"])
    references = [" ".join(rng.choice(words, 8)) for _ in range(80)]
    changed = rng.random(80) < 0.5
    texts = [r.rsplit(" ", 4)[0] + " x y z w" if c else r for r, c in zip(references, changed, strict=True)]
    bleu = load_metric("bleu")
    statistics = bleu.statistics(texts, references)
    interval = score_interval(statistics, bleu.aggregate)
    value = bleu.aggregate(statistics.sum(axis=0, keepdims=True), 80)[0]
    assert interval.low < value < interval.high
    perfect = bleu.statistics(references, references)
    assert paired_interval(perfect, statistics, bleu.aggregate).low > 0


def test_many_examples_take_seconds_and_little_memory():
    values = np.random.default_rng(7).random((20_000, 1))
    begun = time.perf_counter()
    interval = score_interval(values, mean)
    assert time.perf_counter() - begun < 20
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(20_000), rel=0.1)


def test_no_example_and_unequal_examples_are_refused():
    with pytest.raises(ValueError, match="at least one example"):
        score_interval(np.zeros((0, 1)), mean)
    with pytest.raises(ValueError, match="same examples; found 3 and 2"):
        paired_interval(np.zeros((3, 1)), np.zeros((2, 1)), mean)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-1, 1, False), (0, 1, False)]
)
def test_zero_at_the_edge_counts_as_inside(low, high, expected):
    assert Interval(low, high).excludes_zero() is expected
