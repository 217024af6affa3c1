"""The preset files: every range has a source, and every value is one that sweeper allows."""

from __future__ import annotations

import pytest

from sweeper.config.parameters import EXCLUSIVE, PARAMETERS, TECHNIQUE_PARAMETERS
from sweeper.errors import UserError
from sweeper.presets import RECOMMENDED, load, names
from sweeper.presets.presets import Rule, recommend

FILES = [name for name in names() if name != RECOMMENDED]


def test_names_begin_with_the_default():
    assert names() == ("recommended", "grpo", "guide", "lora", "preferences", "reward", "rloo")


@pytest.mark.parametrize("name", FILES)
def test_every_range_has_a_source(name):
    for parameter in load(name).parameters.values():
        assert any(year in parameter.source for year in ("20", "Unsloth", "TRL", "QLoRA")), parameter


@pytest.mark.parametrize("name", FILES)
def test_every_known_good_configuration_has_a_source_and_there_are_at_most_three(name):
    known_good = load(name).known_good
    assert 1 <= len(known_good) <= 3
    assert all(len(configuration.source) > 20 for configuration in known_good)


def technique_of(name):
    purpose = load(name).recommended_for
    return purpose.techniques[0] if purpose is not None else "sft"


@pytest.mark.parametrize("name", FILES)
def test_every_range_is_within_the_bounds_of_its_parameter(name):
    for parameter, entry in load(name).parameters.items():
        values = getattr(entry.range, "choice", None) or entry.range.corners()
        known = {**PARAMETERS, **TECHNIQUE_PARAMETERS.get(technique_of(name), {})}
        assert [known[parameter].fault(value) for value in values] == [None] * len(values)


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


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match=r"no preset 'giude'.*did you mean guide"):
        load("giude")


def test_recommended_falls_back_to_the_guide_for_what_no_preset_is_made_for():
    assert recommend("sft", "qlora").name == "lora"
    assert recommend("sft", "full").name == "guide"
