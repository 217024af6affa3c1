"""The memory estimate counts the weights that PEFT really makes, for every kind of adapter."""

from __future__ import annotations

import pytest
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from sweeper.config.adapter import IA3, Full, LoHa, LoRA, Prefix, Prompt, PTuning, QLoRA
from sweeper.config.parameters import Hyperparameters
from sweeper.models.facts import read_facts
from sweeper.models.memory import Workload, estimate, trained_parameters
from sweeper.training.adapters import peft_config

ADAPTERS = {
    "lora": LoRA(),
    "dora": LoRA(dora=True),
    "prefix": Prefix(virtual_tokens=5),
    "prefix, projected": Prefix(virtual_tokens=5, projection=True, projection_size=24),
    "prefix, projected by its own width": Prefix(virtual_tokens=5, projection=True),
    "prompt": Prompt(virtual_tokens=7),
    "p_tuning": PTuning(virtual_tokens=7),
    "p_tuning, wide": PTuning(virtual_tokens=7, encoder_size=96),
    "p_tuning, lstm": PTuning(virtual_tokens=7, encoder="lstm", encoder_size=32),
    "ia3": IA3(),
    "loha": LoHa(),
    "full": Full(),
}


def work(adapter, **more):
    return Workload(adapter, 4, "all-linear", tokens_per_row=32, dtype="float32", **more)


@pytest.mark.parametrize("name", ADAPTERS)
def test_as_many_weights_are_counted_as_are_trained(tiny_model, name):
    adapter = ADAPTERS[name]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = peft_config(adapter, Hyperparameters(learning_rate=1e-3, batch_size=8, epochs=1, lora_rank=4))
    trained = get_peft_model(model, config) if config is not None else model
    count = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    assert trained_parameters(read_facts(tiny_model), work(adapter)) == pytest.approx(count, rel=0.05)  # biases


def test_each_kind_takes_what_it_is(tiny_model):
    facts = read_facts(tiny_model)
    plain, full = estimate(facts, work(LoRA()), 8), estimate(facts, work(Full()), 8)
    assert full.adapter == facts.parameters * 4 == full.gradients == full.optimizer // 2
    assert full.base == plain.base
    longer = estimate(facts, work(Prompt(virtual_tokens=32)), 8)
    shorter = estimate(facts, work(Prompt(virtual_tokens=1)), 8)
    assert longer.logits == pytest.approx(shorter.logits * 64 / 33, rel=1e-3)
    assert estimate(facts, work(LoRA(init="pissa")), 8).base == 2 * plain.base
    assert estimate(facts, work(QLoRA()), 8).base < plain.base
    quantised = estimate(facts, work(Prefix(quantization="nf4")), 8)
    assert quantised.base == estimate(facts, work(QLoRA()), 8).base
    assert quantised.workspace > 0 == estimate(facts, work(Prefix()), 8).workspace
