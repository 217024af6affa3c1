"""The space of a study that chooses between adapters or models."""

from __future__ import annotations

import pytest

from sweeper.config.space import ADAPTER, MODEL, Fixed, definite, space_faults, space_of
from sweeper.config.study import StudyConfig
from sweeper.presets.choices import ModelSize, resolve_choices
from sweeper.presets.resolution import resolve_space
from sweeper.presets.rules import corner_values, tinker_learning_rate
from sweeper.search.space import assemble

SMALL, LARGE = ModelSize(576, "LlamaForCausalLM"), ModelSize(2048, "LlamaForCausalLM")


def resolve(models=None, rows=2000, max_rank=None, **parts):
    named = {"a": SMALL} if models is None else models
    config = StudyConfig.model_validate(
        {"name": "x", "model": {"choice": list(named)}, "data": {"train": "a.jsonl"}, **parts}
    )
    return resolve_choices(config, rows, named, dict.fromkeys(config.adapters, max_rank))


def choice(**own):
    return {"choice": [{"kind": "lora", "space": own}, "qlora"]}


def test_without_a_choice_it_is_the_space_of_the_preset():
    found = resolve(adapter={"kind": "lora"})
    config = StudyConfig(name="x", model="a", data={"train": "a.jsonl"}, adapter={"kind": "lora"})
    alone = resolve_space(config.search, config.technique, config.adapter, 2000, 576, "LlamaForCausalLM")
    assert found == alone


def test_what_differs_is_scoped_and_what_is_alike_is_shared():
    space = resolve(adapter=choice(learning_rate={"low": 1e-4, "high": 1e-3}, lora_rank=[4, 8])).space
    assert space[ADAPTER].choice == ("lora", "qlora")
    scoped = {name for name in space if "." in name}
    assert scoped == {f"{label}.{name}" for label in ("lora", "qlora") for name in ("learning_rate", "lora_rank")}
    assert all(space[name].when == {ADAPTER: (name.split(".")[0],)} for name in scoped)
    assert {"batch_size", "lora_dropout", "epochs"} <= space.keys()
    assert not any(space[name].when for name in ("batch_size", "lora_dropout", "epochs"))
    assert corner_values(space, "lora_rank") == (4, 8, 8, 128)
    assert space_faults(space) == []


def test_what_one_alternative_lacks_waits_for_the_others():
    space = resolve(adapter=choice(warmup_steps=10)).space
    assert space["warmup_steps"].when == {ADAPTER: ("lora",)}
    assert space["warmup_ratio"].when == {ADAPTER: ("qlora",)}


def test_conditions_follow_the_names_they_look_at():
    own = {"lora_rank": [4, 8], "lora_dropout": {"choice": [0.1, 0.2], "when": {"lora_rank": [4]}}}
    space = resolve(adapter=choice(**own)).space
    assert space["lora.lora_dropout"].when == {ADAPTER: ("lora",), "lora.lora_rank": (4,)}
    alone = space_of(space, {ADAPTER: "lora"})
    assert alone["lora_dropout"].when == {"lora_rank": (4,)}
    assert alone["lora_rank"].choice == (4, 8)
    assert space_of(space, {ADAPTER: "qlora"})["lora_rank"].choice == (8, 16, 32, 64, 128)


def test_the_same_range_under_conditions_that_differ_is_not_alike():
    decay = {"value": 0.1, "when": {"lora_rank": [8]}}
    two = {"choice": [{"kind": "lora", "space": {"lora_rank": [4, 8]}}, {"kind": "qlora", "space": {"lora_rank": [8]}}]}
    space = resolve(adapter=two, search={"space": {"weight_decay": decay}}).space
    assert "weight_decay" not in space
    assert space["qlora.weight_decay"].when == {ADAPTER: ("qlora",), "qlora.lora_rank": (8,)}
    assert space_faults(space) == []


def test_the_search_space_holds_for_all():
    found = resolve(
        adapter=choice(learning_rate=1e-3, warmup_steps=4),
        search={"space": {"learning_rate": 2e-4, "warmup_ratio": 0.1}},
    )
    assert found.space["learning_rate"] == Fixed(value=2e-4)
    assert "warmup_steps" not in found.space


def test_rules_hold_for_each_alternative():
    found = resolve(adapter=choice(lora_rank=[64]), max_rank=16)
    assert found.space["qlora.lora_rank"].choice == (8, 16)
    assert found.space["lora.lora_rank"].choice == (64,)  # the file's own is a fault, and not touched
    assert any(reason.startswith("qlora: ranks above 16") for reason in found.reasons)
    assert sum("epochs fixed" in reason for reason in found.reasons) == 1


def test_the_first_known_good_configuration_of_each_alternative_is_tried():
    models = {"small": SMALL, "large": LARGE}
    found = resolve(models, adapter=choice(lora_rank=[4, 8]))
    assert [(known[MODEL], known[ADAPTER]) for known in found.known_good] == [
        ("small", "lora"),
        ("small", "qlora"),
        ("large", "lora"),
        ("large", "qlora"),
    ]
    assert found.known_good[0]["lora.lora_rank"] == 8
    assert found.known_good[1]["qlora.lora_rank"] == 32
    rate = tinker_learning_rate(2048, "LlamaForCausalLM")
    assert found.known_good[2]["learning_rate"] == pytest.approx(rate)
    assert "4 known-good configurations, tried first with at most a third of the trials" in found.reasons
    assert found.space[MODEL].choice == ("small", "large")


def test_a_trial_has_the_parameters_of_its_alternative_alone():
    space = resolve(adapter=choice(learning_rate=[1e-3, 2e-3], warmup_steps=10)).space
    values = assemble(space, lambda name, range_: "lora" if name == ADAPTER else range_.corners()[0])
    assert values["lora.learning_rate"] == 1e-3
    assert "qlora.learning_rate" not in values and "warmup_ratio" not in values
    found = definite(values)
    assert found["learning_rate"] == 1e-3 and ADAPTER not in found
