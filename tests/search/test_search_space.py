"""Conditions, order, encodings and sizes of spaces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import MIXED, make_space

from sweeper.config.space import Choice, IntRange, describe, enqueue_faults, in_order, space_faults
from sweeper.search.samplers.grid_and_sobol import grid, sobol
from sweeper.search.space import decode, distributions, encode

NESTED = make_space(
    warmup_ratio={"low": 0.0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
    max_grad_norm={"low": 0.5, "high": 2.0, "when": {"lora_rank": 8, "lr_scheduler": "cosine"}},
    lr_scheduler={"choice": ["linear", "cosine"], "when": {"lora_rank": [8, 16]}},
    lora_rank=[8, 16, 32],
)


def test_parents_come_first() -> None:
    order = in_order(NESTED)
    assert order.index("lora_rank") < order.index("lr_scheduler") < order.index("warmup_ratio")
    assert space_faults(NESTED) == []


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"a": {"low": 0.0, "high": 1.0, "when": {"b": [1]}}}, "b, which is not in the space"),
        (
            {"a": {"choice": [1, 2], "when": {"b": [1]}}, "b": {"choice": [1, 2], "when": {"a": [1]}}},
            "depends on itself",
        ),
        ({"a": {"choice": [1, 2], "when": {"a": [1]}}}, "a -> a"),
        ({"a": {"choice": [1, 2], "when": {"b": [7]}}, "b": [1, 2]}, "7, which it cannot be"),
    ],
)
def test_conditions_that_cannot_be_are_named(ranges: dict[str, object], message: str) -> None:
    space = make_space(**ranges)
    assert any(message in found for _, found in space_faults(space))
    with pytest.raises(ValueError, match=message):
        in_order(space)


def test_fixed_values_are_not_searched_and_lists_are_text() -> None:
    assert set(distributions(MIXED)) == {"learning_rate", "batch_size", "lora_rank", "target_modules"}
    modules = MIXED["target_modules"]
    for value in modules.choice:  # type: ignore[union-attr]
        assert isinstance(encode(value), str)
        assert decode(modules, encode(value)) == value


def test_a_grid_has_every_combination_once_and_conditions_hold() -> None:
    plans = grid(NESTED, 2, seed=0)
    # rank 32: 1; rank 8: linear 1, cosine 2 x 2; rank 16: linear 1, cosine 2
    assert len(plans) == 1 + 5 + 3
    assert grid(NESTED, 2, seed=0) == plans
    assert grid(NESTED, 2, seed=1) != plans


@settings(max_examples=50, deadline=None)
@given(index=st.integers(0, 10_000), seed=st.integers(0, 2**31 - 1))
def test_sobol_points_lie_in_the_space(index: int, seed: int) -> None:
    point = sobol(MIXED, index, seed)
    assert all(MIXED[name].contains(decode(MIXED[name], value)) for name, value in point.items())


def test_what_a_condition_rules_out_cannot_be_enqueued() -> None:
    space = {"adapter": Choice(choice=("lora", "ia3")), "rank": IntRange(low=1, high=8, when={"adapter": ("lora",)})}
    assert enqueue_faults(space, [{"adapter": "lora", "rank": 4}, {"rank": 4}]) == []
    assert enqueue_faults(space, [{"adapter": "ia3", "rank": 4}]) == [("0.rank", "has no value if adapter is 'ia3'")]


def test_faults_of_enqueued_configurations_name_the_place() -> None:
    faults = enqueue_faults(MIXED, [{"lora_rank": 8}, {"lora_rank": 9}])
    assert faults == [("1.lora_rank", "9 is outside the space: one of 8, 16, 32")]
    assert describe(MIXED["learning_rate"]) == "1e-05 to 0.001, log"
