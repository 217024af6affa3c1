"""Stored scores give the differences that fresh ones give, without loading a model or a metric."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sweeper.errors import DataError
from sweeper.evaluation.comparison import FEWEST_EXAMPLES, stored_difference
from sweeper.evaluation.metrics import METRICS, load_metric
from sweeper.store import Example

REFERENCES = [f'{{"a": {n}, "b": "the cat sat on mat {n}"}}' for n in range(12)]
GOOD = [text if n % 4 else text.replace("cat", "dog") for n, text in enumerate(REFERENCES)]
BAD = [text if n % 3 == 0 else "no {" for n, text in enumerate(REFERENCES)]


def examples(predictions, metric):
    found = load_metric(metric)
    of_text = found.prediction_type == "string"
    statistics = (
        found.statistics(predictions, REFERENCES)
        if of_text
        else found.statistics([float(len(text)) for text in predictions], [5] * len(predictions))
    )
    scores = found.example_scores(statistics)
    return tuple(
        Example(n, f"prompt {n}", REFERENCES[n], text, {metric: float(scores[n])}, {metric: statistics[n].tolist()})
        for n, text in enumerate(predictions)
    )


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_compared_as_its_own_class_scores_it(metric):
    good, bad = examples(GOOD, metric), examples(BAD, metric)
    found = stored_difference(good, bad, metric)
    totals = [np.array([e.statistics[metric] for e in of]).sum(axis=0, keepdims=True) for of in (good, bad)]
    first, second = (float(load_metric(metric).aggregate(total, len(good))[0]) for total in totals)
    assert found.value == pytest.approx(first - second)
    assert found.interval.low <= found.value <= found.interval.high
    assert first != second, "the two differ, else nothing was compared"


def test_a_mean_needs_no_statistics_and_other_metrics_do():
    def bare(of):
        return tuple(Example(e.index, e.prompt, e.reference, e.generated, e.scores) for e in of)

    good, bad = examples(GOOD, "exact_match"), examples(BAD, "exact_match")
    assert stored_difference(bare(good), bare(bad), "exact_match") == stored_difference(good, bad, "exact_match")
    with pytest.raises(DataError, match="kept too little"):
        stored_difference(bare(examples(GOOD, "bleu")), bare(examples(BAD, "bleu")), "bleu")


def test_other_examples_are_refused():
    good = examples(GOOD, "exact_match")
    with pytest.raises(DataError, match="different examples"):
        stored_difference(good, good[1:], "exact_match")
    with pytest.raises(DataError, match="not scored"):
        stored_difference(good, (), "exact_match")


def test_few_examples_decide_nothing():
    good, bad = (examples(of, "exact_match")[: FEWEST_EXAMPLES - 1] for of in (GOOD, BAD))
    assert stored_difference(good, bad, "exact_match").verdict == "undecided"


def test_comparing_loads_neither_torch_nor_the_metrics():
    code = (
        "import sys; from sweeper.evaluation.comparison import stored_difference; from sweeper.store import Example\n"
        "e = [Example(n, str(n), 'r', 'g', {'exact_match': n % 2}) for n in range(9)]\n"
        "stored_difference(e, e, 'exact_match'); print({'torch', 'evaluate', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_metric_has_no_aggregate_rather_than_a_mean():
    with pytest.raises(KeyError):
        load_metric("bertscore")
