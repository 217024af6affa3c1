"""From a sampler's choice to definite hyperparameters."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sweeper.config.parameters import LORA_PARAMETERS, PARAMETERS, Hyperparameters
from sweeper.executors.lifecycle.claims import ask
from sweeper.executors.lifecycle.trial_spec import hyperparameters, planned_steps, specification


def test_what_is_not_chosen_has_its_default():
    found = hyperparameters({})
    assert found == Hyperparameters(
        learning_rate=2e-4,
        batch_size=16,
        epochs=1,
        warmup_ratio=0.05,
        lr_scheduler="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        lora_rank=16,
        lora_alpha=32.0,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    assert set(Hyperparameters.model_fields) == {*PARAMETERS, "trl"}


@pytest.mark.parametrize(
    ("alpha", "rank", "expected"), [("r", 8, 8.0), ("2r", 8, 16.0), ("0.5r", 32, 16.0), (24, 8, 24.0), (1.5, 64, 1.5)]
)
def test_alpha_is_a_number_or_a_multiple_of_the_rank(alpha, rank, expected):
    assert hyperparameters({"lora_alpha": alpha, "lora_rank": rank}).lora_alpha == expected


@pytest.mark.parametrize(
    ("chosen", "steps", "ratio"),
    [
        ({}, None, 0.05),
        ({"warmup_ratio": 0.1}, None, 0.1),
        ({"warmup_steps": 100}, 100, None),
        ({"warmup_steps": 0}, 0, None),
        ({"warmup_steps": 7, "warmup_ratio": 0.1}, 7, None),  # the space cannot name both, a preset's rest could
    ],
)
def test_there_is_one_kind_of_warmup(chosen, steps, ratio):
    found = hyperparameters(chosen)
    assert (found.warmup_steps, found.warmup_ratio) == (steps, ratio)


def test_whole_numbers_that_a_choice_made_floats_are_whole_again():
    found = hyperparameters({"batch_size": 8.0, "lora_rank": 4.0, "warmup_steps": 10.0})
    assert [type(value) for value in (found.batch_size, found.lora_rank, found.warmup_steps)] == [int] * 3


def test_other_names_are_trls():
    found = hyperparameters({"neftune_noise_alpha": 5.0, "optim": "adafactor", "learning_rate": 1e-3})
    assert found.trl == {"neftune_noise_alpha": 5.0, "optim": "adafactor"}
    assert found.learning_rate == 1e-3


def test_the_adapters_options_become_part_of_it_and_not_trls(begin):
    space = {"rslora": [True], "lora_plus": [4, 16], "neftune_noise_alpha": 5.0, "lora_rank": 4}
    context = begin(adapter={"kind": "lora", "dora": True}, search={"space": space})
    spec = specification(context, ask(context))
    assert (spec.adapter.dora, spec.adapter.rslora) == (True, True)
    assert spec.adapter.lora_plus in (4, 16)
    assert spec.hyperparameters.trl == {"neftune_noise_alpha": 5.0}
    assert spec.parameters["lora_plus"] == spec.adapter.lora_plus
    assert spec.parameters["lora_rank"] == 4


def test_what_an_adapter_has_not_is_no_parameter_of_its_trials(begin):
    context = begin(adapter="prefix", search={"space": {"virtual_tokens": {"low": 2, "high": 6}}})
    spec = specification(context, ask(context))
    assert 2 <= spec.parameters["virtual_tokens"] == spec.adapter.virtual_tokens <= 6
    assert not set(LORA_PARAMETERS) & spec.parameters.keys()


def test_modules_may_be_named():
    assert hyperparameters({"target_modules": ("q_proj", "v_proj")}).target_modules == ("q_proj", "v_proj")
    with pytest.raises(ValidationError):
        hyperparameters({"learning_rate": "fast"})


def test_the_specification_is_complete(begin, tiny_model):
    context = begin(executor={"micro_batch": 4}, search={"space": {"warmup_ratio": 0.25, "epochs": 2, "batch_size": 8}})
    candidate = ask(context)
    spec = specification(context, candidate)
    assert (spec.study, spec.number, spec.seed) == ("tiny", 0, candidate.seed)
    assert (spec.model_folder, spec.device, spec.micro_batch) == (tiny_model, "cpu", 4)
    assert spec.folder == context.paths.trial(0).folder
    assert spec.train.is_file()
    assert spec.validation.is_file()
    assert "test" not in {spec.train.stem, spec.validation.stem}
    assert planned_steps(context, spec) == (6, 2)
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec  # it crosses processes as text
