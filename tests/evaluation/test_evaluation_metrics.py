"""Metrics against values worked out by hand and against the libraries' own corpus scores."""

from __future__ import annotations

import math
import socket
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from sweeper.config.evaluation import LOSSES, PREFERENCE_METRICS, REWARD_METRICS, TASK_METRICS, UNBOUNDED
from sweeper.errors import DataError
from sweeper.evaluation.metrics import METRICS, evaluate_module, load_metric

PREDICTIONS = [
    "the cat sat on the mat",
    "a dog is in the house today",
    "completely different words here",
    "",
    "hello there my old friend",
]
REFERENCES = [
    "the cat sat on the mat",
    "a dog was in the big house today",
    "nothing in common at all",
    "some answer that was due",
    "hello there old friend of mine",
]


def score(name, predictions, references):
    return evaluate_module(name).compute(predictions=predictions, references=references)[name]


def test_every_metric_a_study_may_name_is_there():
    assert set(METRICS) == set(LOSSES + TASK_METRICS + PREFERENCE_METRICS + REWARD_METRICS)


def test_importing_the_rooms_loads_neither_torch_nor_evaluate():
    rooms = "evaluation, evaluation.metrics, evaluation.comparison, evaluation.report, evaluation.scores"
    code = "import sys\n" + "".join(f"import sweeper.{room.strip()}\n" for room in rooms.split(","))
    code += "print(sorted({'torch', 'evaluate', 'transformers', 'datasets', 'sacrebleu'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", TASK_METRICS)
def test_metrics_load_and_score_with_no_network_and_write_no_file(name, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))
    load_metric.cache_clear()
    answer = '{"city": "Oslo", "size": 3}' if name == "field_match" else "some words in a row"
    import evaluate

    metric = evaluate_module(name)
    assert isinstance(metric, evaluate.Metric)
    expected = 0.0 if name in ("json_validity", "wer") else 1.0
    assert metric.compute(predictions=[answer], references=[answer])[name] == pytest.approx(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in TASK_METRICS if n != "field_match"])
def test_score_follows_from_the_sums_of_the_statistics(name):
    metric = load_metric(name)
    statistics = metric.statistics(PREDICTIONS, REFERENCES)
    total = metric.aggregate(statistics.sum(axis=0, keepdims=True), len(statistics))[0]
    assert total == pytest.approx(score(name, PREDICTIONS, REFERENCES))
    examples = metric.example_scores(statistics)
    assert examples.shape == (5,) and examples.min() >= 0 and (examples.max() <= 1 or name in UNBOUNDED)


def test_bleu_and_chrf_are_the_librarys_corpus_scores_by_100():
    bleu = sacrebleu.BLEU().corpus_score(PREDICTIONS, [REFERENCES]).score
    chrf = sacrebleu.CHRF().corpus_score(PREDICTIONS, [REFERENCES]).score
    assert 10 < bleu < 90 and score("bleu", PREDICTIONS, REFERENCES) == pytest.approx(bleu / 100)
    assert 10 < chrf < 90 and score("chrf", PREDICTIONS, REFERENCES) == pytest.approx(chrf / 100)


def test_bleu_of_single_examples_is_the_librarys_sentence_bleu():
    metric = load_metric("bleu")
    found = metric.example_scores(metric.statistics(PREDICTIONS, REFERENCES))
    sentence = sacrebleu.BLEU(effective_order=True)
    pairs = zip(PREDICTIONS, REFERENCES, strict=True)
    assert found == pytest.approx([sentence.sentence_score(p, [r]).score / 100 for p, r in pairs])


@pytest.mark.parametrize(
    ("prediction", "reference", "edits", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("the bat sat down", "the cat sat", 2, 3),  # one substituted, one inserted
        ("", "the cat sat", 3, 3),
        ("three words more", "", 3, 0),
        ("", "", 0, 0),
        ("Cat.", "cat", 1, 1),
    ],
)
def test_word_edits_by_hand(prediction, reference, edits, words):
    assert load_metric("wer").statistics([prediction], [reference]).tolist() == [[edits, words]]


def test_word_error_rate_is_the_corpus_rate_not_the_mean_of_rates():
    predictions, references = ["x", "a b c d e f g h i j"], ["y", "a b c d e f g h i j"]
    assert score("wer", predictions, references) == pytest.approx(1 / 11)
    metric = load_metric("wer")
    assert metric.example_scores(metric.statistics(predictions, references)).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_librarys_mean(name):
    scorer = RougeScorer([name])
    pairs = list(zip(PREDICTIONS, REFERENCES, strict=True))
    expected = np.mean([scorer.score(r, p)[name].fmeasure for p, r in pairs])
    assert score(name, PREDICTIONS, REFERENCES) == pytest.approx(expected)


def test_rouge1_by_hand():
    # three of five words of each side are shared
    assert score("rouge1", ["a b c x y"], ["a b c d e"]) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [("312", "312", 1), (" 312\n", "312", 1), ("312.", "312", 0), ("Cat", "cat", 0), ("", "", 1), ("", "x", 0)],
)
def test_exact_match(prediction, reference, expected):
    assert score("exact_match", [prediction], [reference]) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("The cat!", "a cat", 1),
        ("cat dog", "cat", 2 / 3),  # precision 1/2, recall 1
        ("cat cat", "cat dog bird", 2 / 5),  # one shared of two and three
        ("the", "an", 1),
        ("the", "cat", 0),
        ("dog", "cat", 0),
    ],
)
def test_token_f1(prediction, reference, expected):
    assert score("token_f1", [prediction], [reference]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("Positive.", "positive", 1),
        ("positive because the film is good", "Positive", 1),
        ("**Very good**, I think", "very good", 1),
        ("not positive", "positive", 0),
        ("positively", "positive", 0),
        ("-5", "5", 0),
        ("", "positive", 0),
        ("?", "?", 1),
        ("x", "", 0),
    ],
)
def test_accuracy(prediction, reference, expected):
    assert score("accuracy", [prediction], [reference]) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ('{"a": [1, 2.5, null]}', 1),
        (" 42 ", 1),
        ("{'a': 1}", 0),
        ("NaN", 0),
        ('{"a": 1} and more', 0),
        ("", 0),
        ("[" * 100_000, 0),
        ("1" * 10_000, 0),
    ],
)
def test_json_validity(prediction, expected):
    assert score("json_validity", [prediction], ["anything"]) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ('{"name": "Ann", "age": 41.0, "home": {"city": "Oslo", "zip": "0150"}, "tags": ["x"]}', 1),
        ('{"name": "Ann", "age": 40, "home": {"city": "Oslo"}, "tags": ["x", "y"], "more": 1}', 2 / 5),
        ('{"home": "Oslo"}', 0),
        ("Ann", 0),
        ("[1]", 0),
    ],
)
def test_field_match(prediction, expected):
    reference = '{"name": "Ann", "age": 41, "home": {"city": "Oslo", "zip": "0150"}, "tags": ["x"]}'
    assert score("field_match", [prediction], [reference]) == pytest.approx(expected)


def test_field_match_tells_true_from_one_also_within_lists():
    assert score("field_match", ['{"a": 1, "b": [true]}'], ['{"a": true, "b": [1]}']) == 0


def test_field_match_names_the_row_whose_reference_is_no_object():
    with pytest.raises(DataError, match=r"row 2: field_match needs .* found 'plain text'"):
        score("field_match", ["{}", "{}"], ["{}", "plain text"])


def test_perplexity_weighs_tokens_not_rows():
    # 2 nats over 1 token and 1 nat over 9 tokens: 3 nats over 10
    assert score("eval_loss", [2.0, 1.0], [1, 9]) == pytest.approx(0.3)
    assert score("perplexity", [2.0, 1.0], [1, 9]) == pytest.approx(math.exp(0.3))
    metric = load_metric("perplexity")
    examples = metric.example_scores(metric.statistics([2.0, 1.0], [1, 9]))
    assert examples == pytest.approx([math.exp(2), math.exp(1 / 9)])
