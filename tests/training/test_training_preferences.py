"""Trials of DPO, KTO, ORPO and CPO, against TRL's own trainers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model_state_dict
from variants import mostly_long

from sweeper.config.technique import CPO, DPO, KTO, ORPO
from sweeper.config.trial import Outcome
from sweeper.data.splits import read_prepared
from sweeper.training.adapters import peft_config
from sweeper.training.techniques.preferences import TRAINERS

TECHNIQUES = {
    "dpo": DPO(max_length=64),
    "kto": KTO(max_length=64),
    "orpo": ORPO(max_length=64),
    "cpo": CPO(max_length=64),
}
SHAPES = {"dpo": "preference", "kto": "unpaired", "orpo": "preference", "cpo": "preference"}
QUICK = {"batch_size": 8, "epochs": 2.0, "trl": {"beta": 0.1}}


@pytest.fixture(params=TECHNIQUES)
def kind(request):
    return request.param


def asked(kind, **more):
    return {"technique": TECHNIQUES[kind], "shape": SHAPES[kind], "metric": "eval_loss", **QUICK, **more}


def plain_losses(kind, spec, base):
    """The training losses of TRL's own trainer, which batches and averages by itself."""
    config, ours = TRAINERS[kind]
    own = next(each for each in ours.__mro__ if each.__module__.startswith("trl."))
    arguments = config(
        output_dir=str(spec.folder / "plain"),
        per_device_train_batch_size=spec.hyperparameters.batch_size,
        num_train_epochs=spec.hyperparameters.epochs,
        learning_rate=spec.hyperparameters.learning_rate,
        max_length=64,
        beta=0.1,
        bf16=False,
        use_cpu=True,
        activation_checkpointing=False,
        seed=spec.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
        trainer = own(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(read_prepared(spec.train)),
            processing_class=base.tokenizer,
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_trial_has_the_losses_of_trl_itself(kind, lora_base, train, spec):
    result, curve = train(lora_base, **asked(kind))
    assert result.outcome is Outcome.COMPLETE
    assert curve.of("loss") == pytest.approx(plain_losses(kind, spec(**asked(kind)), lora_base), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", mostly_long(["dpo", "orpo", "cpo"], "dpo"))
def test_the_micro_batch_changes_no_loss(kind, lora_base, train):
    _, whole = train(lora_base, micro_batch=8, **asked(kind))
    _, parts = train(lora_base, micro_batch=3, **asked(kind))
    assert parts.of("loss") == pytest.approx(whole.of("loss"), rel=1e-4, abs=1e-5)
    assert parts.of("eval_loss") == pytest.approx(whole.of("eval_loss"), rel=1e-4, abs=1e-5)


def test_it_learns_on_a_four_bit_base_and_leaves_the_base_as_it_was(kind, qlora_base, train):
    before = {name: tensor.clone() for name, tensor in qlora_base.model.state_dict().items()}
    attributes = copy.copy(qlora_base.model.__dict__)
    result, curve = train(qlora_base, "qlora", **asked(kind, learning_rate=1e-2, epochs=4.0))
    losses = curve.of("eval_loss")
    assert result.outcome is Outcome.COMPLETE
    assert math.isfinite(losses[-1]) and result.tokens > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in qlora_base.model.state_dict().items())
    assert qlora_base.model.__dict__.keys() == attributes.keys()


def test_the_reference_is_the_base_itself(lora_base, train, spec):
    """At the first step policy and reference are the same, whose DPO loss is log 2; no copy of the adapter stays."""
    _, curve = train(lora_base, **asked("dpo"))
    assert curve.of("loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    with lora_base.with_adapter(spec().folder / "adapter") as model:
        assert list(model.peft_config) == ["default"]
        assert get_peft_model_state_dict(model)


def test_dropout_that_a_trial_asks_for_is_there(lora_base, train):
    _, without = train(lora_base, **asked("dpo"))
    _, dropped = train(lora_base, **asked("dpo", lora_dropout=0.5))
    assert dropped.of("loss")[1:] != pytest.approx(without.of("loss")[1:], rel=1e-4)


def test_prompts_that_fill_the_length(lora_base, train):
    from sweeper.errors import DataError

    with pytest.raises(DataError, match=r"every prompt fills technique.max_length \(8 tokens\)"):
        train(lora_base, **asked("dpo", technique=DPO(max_length=8), shape="preference_chat"))
