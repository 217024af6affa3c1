"""The preset files: every range has a source, and every value is one that sweeper allows."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from sweeper.config.adapter import Adapter
from sweeper.config.choice import option_fault
from sweeper.config.parameters import EXCLUSIVE, LORA_PARAMETERS, PARAMETERS
from sweeper.config.technique import TECHNIQUES
from sweeper.errors import UserError
from sweeper.presets.presets import RECOMMENDED, Rule, load, names, recommend

ADAPTER = TypeAdapter(Adapter)
FILES = [name for name in names() if name != RECOMMENDED]


def test_names_begin_with_the_default():
    assert names() == (
        "recommended",
        "full",
        "grpo",
        "guide",
        "ia3",
        "loha",
        "lora",
        "preferences",
        "prompt",
        "reward",
        "rloo",
    )


@pytest.mark.parametrize("name", FILES)
def test_every_range_has_a_source(name):
    for parameter in load(name).parameters.values():
        assert any(year in parameter.source for year in ("20", "Unsloth", "TRL", "QLoRA")), parameter


@pytest.mark.parametrize("name", FILES)
def test_every_known_good_configuration_has_a_source_and_there_are_at_most_three(name):
    known_good = load(name).known_good
    assert 1 <= len(known_good) <= 3
    assert all(len(configuration.source) > 20 for configuration in known_good)


@pytest.mark.parametrize("name", FILES)
def test_every_range_is_within_the_bounds_of_its_parameter(name):
    purpose = load(name).recommended_for
    for parameter, entry in load(name).parameters.items():
        values = getattr(entry.range, "choice", None) or entry.range.corners()
        own = [TECHNIQUES[kind].parameters.get(parameter) for kind in (purpose.techniques if purpose else ())]
        known = [each for each in (PARAMETERS.get(parameter), *own) if each is not None]
        assert [each.fault(value) for each in known for value in values] == [None] * len(values) * len(known)
        for kind in () if known else purpose.adapters:
            assert option_fault(ADAPTER.validate_python(kind), parameter, entry.range) is None


@pytest.mark.parametrize("name", FILES)
def test_known_good_values_are_inside_their_ranges(name):
    preset = load(name)
    for configuration in preset.known_good:
        for parameter, value in configuration.values.items():
            assert isinstance(value, Rule) or preset.parameters[parameter].range.contains(value), parameter


@pytest.mark.parametrize("name", FILES)
def test_no_preset_names_both_of_an_exclusive_pair(name):
    assert not any(set(pair) <= load(name).parameters.keys() for pair in EXCLUSIVE)


def test_guide_holds_the_ranges_the_project_was_asked_to_honour():
    ranges = {name: parameter.range for name, parameter in load("guide").parameters.items()}
    assert (ranges["learning_rate"].low, ranges["learning_rate"].high, ranges["learning_rate"].log) == (
        1e-5,
        1e-4,
        True,
    )
    assert ranges["epochs"].choice == (1, 2, 3)
    assert (ranges["warmup_steps"].low, ranges["warmup_steps"].high) == (100, 500)
    assert ranges["lora_rank"].choice == (4, 8, 16, 32, 64)
    assert {"batch_size", "lr_scheduler"} <= ranges.keys()


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="no preset 'giude'; known are recommended"):
        load("giude")


def test_recommended_falls_back_to_the_guide_for_what_no_preset_is_made_for():
    assert recommend("sft", "qlora").name == "lora"
    assert recommend("sft", "another").name == "guide"


@pytest.mark.parametrize(
    ("adapter", "preset"),
    [("prefix", "prompt"), ("prompt", "prompt"), ("p_tuning", "prompt"), ("ia3", "ia3"), ("full", "full")],
)
def test_every_adapter_has_a_preset_of_its_own_sources(adapter, preset):
    assert recommend("sft", adapter).name == preset
    assert not set(LORA_PARAMETERS) & load(preset).parameters.keys()
