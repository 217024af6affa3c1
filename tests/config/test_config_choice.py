"""Choices over adapters and base models, as a study file writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.choice import loaded_as
from sweeper.config.loader import load_study
from sweeper.config.study import StudyConfig
from sweeper.errors import StudyFileError

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def study(tmp_path):
    def load(text: str) -> StudyConfig:
        file = tmp_path / "study.yaml"
        file.write_text(f"name: x\ndata: {{train: a.jsonl}}\n{text}\n")
        return load_study(file).config

    return load


def faults(load, text):
    with pytest.raises(StudyFileError) as found:
        load(text)
    return {(fault.line, fault.field): fault.message for fault in found.value.faults}


def test_alternatives_are_called_by_kind_or_by_what_tells_them_apart(study):
    config = study(
        "model: m\n"
        "adapter: {choice: [lora, qlora, {kind: qlora, quantization: fp4}, "
        "{kind: qlora, double_quantization: false, rslora: true, space: {lora_rank: [4]}}]}"
    )
    assert list(config.adapters) == [
        "lora",
        "qlora",
        "qlora quantization=fp4",
        "qlora double_quantization=False rslora=True",
    ]
    assert config.adapters["lora"].adapter == LoRA()
    assert config.adapters["qlora quantization=fp4"].adapter == QLoRA(quantization="fp4")
    assert list(config.adapters["qlora double_quantization=False rslora=True"].space) == ["lora_rank"]


def test_one_part_is_a_choice_of_one(study):
    config = study("model: m\nadapter: {kind: lora}")
    assert (list(config.models), list(config.adapters), config.bases) == (["m"], ["lora"], ("",))


def test_a_choice_survives_the_database_and_the_command_line(study):
    config = study(
        "model: {choice: [a, {name: b, dtype: float32}]}\n"
        "adapter: {choice: [lora, {kind: qlora, space: {learning_rate: {low: 1e-4, high: 1e-3}}}]}"
    )
    assert StudyConfig.model_validate(config.model_dump(mode="json")) == config
    assert StudyConfig.model_validate(config.model_dump()) == config
    assert config.models["b"].dtype == "float32"


def test_bases_differ_by_model_and_by_what_is_in_memory(study):
    config = study("model: {choice: [a, b]}\nadapter: {choice: [lora, {kind: lora, rslora: true}, qlora]}")
    assert config.bases == ("a dense", "a nf4", "b dense", "b nf4")
    assert config.base_label("b", QLoRA()) == "b nf4"
    assert study("model: a\nadapter: {choice: [lora, {kind: lora, rslora: true}]}").bases == ("",)
    assert [loaded_as(QLoRA(quantization=q, double_quantization=False)) for q in ("fp4", "int8")] == [
        "fp4 quantised once",
        "int8",
    ]


def test_every_fault_of_an_alternative_has_its_line(study):
    text = """model: {choice: [a, {name: b, dtyp: float32}]}
adapter:
  choice:
    - lorra
    - {kind: qlora, quantisation: fp4}
    - kind: lora
      space:
        learning_rat: 1e-4
        warmup_steps: 4
        warmup_ratio: 4
        lora_alpha: {choice: [8], when: {rank: 3}}"""
    found = faults(study, text)
    assert list(found) == [
        (3, "model.choice.1.dtyp"),
        (6, "adapter.choice.0"),
        (7, "adapter.choice.1.quantisation"),
        (10, "adapter.choice.2.space.learning_rat"),
        (12, "adapter.choice.2.space.warmup_ratio"),
        (13, "adapter.choice.2.space.lora_alpha.when.rank"),
    ]
    assert (
        "allowed are dora, double_quantization, init, kind, lora_plus, quantization, rslora"
        in found[7, "adapter.choice.1.quantisation"]
    )
    assert "must be one of lora, qlora" in found[6, "adapter.choice.0"]


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("model: {choice: [a, a]}", "model", "'a' is there 2 times"),
        ("model: a\nadapter: {choice: [lora, lora]}", "adapter", "'lora' is there 2 times"),
        ("model: {choice: []}", "model", "a choice needs alternatives"),
        ("model: {choice: [a], dtype: auto}", "model.dtype", "unknown key; allowed are choice"),
        ("model: a\nadapter: {choice: [lora], space: {}}", "adapter.space", "unknown key; allowed are choice"),
        ("model: a\nevaluation: {metric: exact_match, goal: 90}", "evaluation", "from 0 to 1"),
        (
            "model: a\nsearch: {space: {lora_rank: {choice: [4], when: {adapter: qlora}}}}",
            "search.space.lora_rank.when.adapter",
            "not in the space",
        ),
    ],
)
def test_choices_that_are_none(study, text, field, said):
    found = faults(study, text)
    assert said in next(message for (_, at), message in found.items() if at == field)


def test_a_range_may_wait_for_an_alternative(study):
    config = study(
        "model: a\nadapter: {choice: [lora, qlora]}\n"
        "search: {space: {weight_decay: {value: 0.1, when: {adapter: qlora}}}}"
    )
    assert config.search.space["weight_decay"].when == {"adapter": ("qlora",)}


def test_several_models_and_a_goal_seek_the_smallest(study):
    several = "model: {choice: [a, b]}\nevaluation: {metric: exact_match"
    assert study(f"{several}, goal: 0.9}}").evaluation.objectives == ("parameters", "latency")
    assert study(f"{several}, goal: 0.9, objectives: [adapter_size]}}").evaluation.objectives == ("adapter_size",)
    assert study(f"{several}}}").evaluation.objectives == ()
    assert study("model: a\nevaluation: {metric: exact_match, goal: 0.9}").evaluation.objectives == ()


@pytest.mark.parametrize("name", ["adapter-choice", "smallest-model"])
def test_the_example_studies_load(name):
    config = load_study(STUDIES / f"{name}.yaml").config
    assert config.name == name
    assert len(config.models) * len(config.adapters) == 2
