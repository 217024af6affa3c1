from __future__ import annotations

import random

import pytest

from sweeper.data import duplicates
from sweeper.data.duplicates import find_duplicates, normalised


def completion(prompt, answer="7"):
    return {"prompt": prompt, "completion": answer}


def sentence(seed, words=30):
    draw = random.Random(seed)
    return [f"word{draw.randrange(10_000)}" for _ in range(words)]


def test_case_spaces_and_ways_to_write_a_character_make_no_difference():
    assert normalised(completion("  Write\tÉté ﬁve\n")) == normalised(completion("write ÉTÉ five"))
    assert normalised(completion("write five")) != normalised(completion("write four"))
    chat = {"messages": [{"role": "user", "content": "Write five"}, {"role": "assistant", "content": "5"}]}
    assert normalised(chat) == "write five 5"


def test_exact_duplicates_are_counted_within_and_across_splits():
    found = find_duplicates(
        {
            "train": [completion("a b c"), completion("A  b c"), completion("a b c"), completion("d e f")],
            "test": [completion("D e f"), completion("g h i"), completion("a b c")],
        }
    )
    assert found.exact[0] == (("train", 0), ("train", 1), ("train", 2), ("test", 2))
    assert (found.repeated("train"), found.repeated("test")) == (2, 0)
    assert (found.shared("test", "train"), found.shared("train", "test")) == (2, 4)
    assert found.near == ()
    assert found.places()["test", 0] == "exact" and ("test", 1) not in found.places()


@pytest.mark.parametrize(("changed", "near"), [(1, True), (15, False)])
def test_near_duplicates_share_most_triples_of_words(changed, near):
    words = sentence(1)
    other = [*words[:-changed], *sentence(2, changed)]
    rows = {
        "train": [completion(" ".join(words)), completion(" ".join(sentence(3)))],
        "test": [completion(" ".join(other))],
    }
    found = find_duplicates(rows)
    assert found.looked_for_near and found.exact == ()
    assert [pair[:2] for pair in found.near] == ([(("train", 0), ("test", 0))] if near else [])
    assert found.near_shared("test", "train") == near and found.near_shared("test", "test") == 0


def test_near_duplicates_are_found_among_many():
    rows = [completion(" ".join(sentence(seed))) for seed in range(500)]
    doubles = [completion(" ".join([*sentence(seed)[:-1], "another"])) for seed in range(0, 500, 10)]
    found = find_duplicates({"train": [*rows, *doubles]})
    assert {pair[:2] for pair in found.near} == {
        (("train", seed), ("train", 500 + place)) for place, seed in enumerate(range(0, 500, 10))
    }
    assert found.near_shared("train", "train") == 50


def test_too_many_words_are_compared_exactly_only(monkeypatch):
    monkeypatch.setattr(duplicates, "NEAR_WORDS", 20)
    rows = [
        completion("a b c d e f g h i j k l m"),
        completion("a b c d e f g h i j k l m n"),
        completion("x"),
        completion("x"),
    ]
    found = find_duplicates({"train": rows})
    assert not found.looked_for_near and found.near == () and found.repeated("train") == 1
