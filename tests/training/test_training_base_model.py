"""The base model serves one trial after the other and is never changed by any."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch

from sweeper.config.adapter import QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome
from sweeper.errors import ModelError
from sweeper.training.base_model import load_base
from sweeper.training.trial import train_trial


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def traces(model):
    """What a trial could leave behind besides weights: patches, hooks, modes and settings."""
    return {
        "modules": [(name, type(module).__name__, module.training) for name, module in model.named_modules()],
        "own attributes": sorted(
            (name, attribute)
            for name, module in model.named_modules()
            for attribute in module.__dict__
            if attribute in ("forward", "peft_config", "neftune_noise_alpha")
        ),
        "hooks": [
            (name, len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        ],
        "trainable": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "gradients": [name for name, parameter in model.named_parameters() if parameter.grad is not None],
        "checkpointing": getattr(model, "is_gradient_checkpointing", False),
        "config": copy.deepcopy(model.config.to_dict()),
        "generation": copy.deepcopy(model.generation_config.to_dict()),
    }


def assert_untouched(model, weights, before):
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert traces(model) == before


OTHERS = {
    "larger rank": {"lora_rank": 8, "learning_rate": 2e-2, "batch_size": 4},
    "dropout": {"lora_dropout": 0.3, "seed": 5},
    "checkpointing": {"technique": SFT(max_length=64, gradient_checkpointing=True)},
    "noise": {"trl": {"neftune_noise_alpha": 10.0}},
    "packing": {"technique": SFT(max_length=64, packing=True)},
}


@pytest.mark.parametrize("kind", ["qlora", pytest.param("lora", marks=pytest.mark.long)])
def test_a_trial_is_the_same_first_or_last(new_base, train, kind):
    base = new_base(kind)
    weights, before = state(base.model), traces(base.model)
    asked = {"number": 0, "lora_dropout": 0.1}
    first, curve = train(base, kind, **asked)
    assert first.outcome is Outcome.COMPLETE
    assert_untouched(base.model, weights, before)
    for number, changes in enumerate(OTHERS.values(), start=1):
        other, _ = train(base, kind, number=number, **changes)
        assert other.outcome is Outcome.COMPLETE, other.reason
        assert_untouched(base.model, weights, before)
    again, later = train(base, kind, **asked)
    assert later.steps == curve.steps
    assert later.evaluations == curve.evaluations
    assert again.adapter_sha256 == first.adapter_sha256
    elsewhere, alone = train(new_base(kind), kind, **asked)
    assert alone.steps == curve.steps
    assert elsewhere.adapter_sha256 == first.adapter_sha256


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_trial_that_ends_badly_leaves_no_trace_either(new_base, spec, kind):
    base = new_base(kind)
    weights, before = state(base.model), traces(base.model)

    def broken(step, metrics):
        if step == 2:
            raise RuntimeError("the disk is gone")
        return tiny.Curve()(step, metrics)

    asked = spec(kind, technique=SFT(max_length=64, gradient_checkpointing=True), trl={"neftune_noise_alpha": 10.0})
    result = train_trial(asked, base, broken, 8)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "RuntimeError: the disk is gone")
    assert "the disk is gone" in (asked.folder / "error.txt").read_text()
    assert_untouched(base.model, weights, before)


def test_a_saved_adapter_is_loaded_for_a_while(lora_base, train, spec):
    weights, before = state(lora_base.model), traces(lora_base.model)
    train(lora_base, number=3)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = lora_base.model(ids).logits
        with lora_base.with_adapter(spec(number=3).folder / "adapter") as model:
            assert not torch.equal(model(ids).logits, plain)
        assert torch.equal(lora_base.model(ids).logits, plain)
    assert_untouched(lora_base.model, weights, before)


def test_pickled_adapters_are_refused(lora_base, tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="does not load pickled adapters"), lora_base.with_adapter(tmp_path):
        pass


def test_a_broken_model_folder_is_an_error_of_the_users(tiny_model, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_model / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(folder, ModelConfig(name="broken"), QLoRA(), "cpu")
