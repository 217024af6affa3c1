"""Ranges as study files write them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from sweeper.config.space import Choice, Fixed, FloatRange, IntRange, Space, describe


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("weight_decay", {"low": 0, "high": 1}, FloatRange(low=0, high=1)),
        ("qlora.learning_rate", {"low": 1, "high": 2, "log": True}, FloatRange(low=1, high=2, log=True)),
        ("max_grad_norm", {"low": 1, "high": 4, "step": 1}, IntRange(low=1, high=4)),
        ("epochs", {"low": 1, "high": 3}, IntRange(low=1, high=3)),
        ("lora_rank", {"low": 4, "high": 8}, IntRange(low=4, high=8)),
        ("target_modules", ["q_proj", "v_proj"], Fixed(value=("q_proj", "v_proj"))),
        ("target_modules", {"choice": ["q_proj", "v_proj"]}, Choice(choice=("q_proj", "v_proj"))),
        ("target_modules", [["q_proj", "v_proj"], "all-linear"], Choice(choice=(("q_proj", "v_proj"), "all-linear"))),
        ("target_modules", ["all-linear", "q_proj"], Choice(choice=("all-linear", "q_proj"))),
        ("neftune_noise_alpha", [None, 5], Choice(choice=(None, 5))),
    ],
)
def test_the_parameters_type_decides_what_its_spelling_leaves_open(name, given, expected):
    assert TypeAdapter(Space).validate_python({name: given}) == {name: expected}


def test_sets_of_modules_and_null_are_shown_as_such():
    assert describe(Fixed(value=("q_proj", "v_proj"))) == "always q_proj + v_proj"
    assert describe(Choice(choice=(None, ("q_proj", "v_proj"), 5))) == "one of null, q_proj + v_proj, 5"
