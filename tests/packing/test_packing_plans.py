"""What can be packed, and how many at once."""

from __future__ import annotations

import pytest
import torch

from sweeper.config.adapter import QLoRA
from sweeper.config.space import Choice, Fixed
from sweeper.models.facts import read_facts
from sweeper.models.memory import Workload, estimate
from sweeper.packing.obstacles import obstacle_in_study
from sweeper.packing.planning import MOST_SLOTS, plan
from sweeper.packing.probe import obstacle_in_base

WORK = Workload(QLoRA(), 8, "all-linear", tokens_per_row=32, dtype="float32")


@pytest.fixture
def facts(tiny_model):
    return read_facts(tiny_model)


def planned(facts, free, slots=None, n_trials=100):
    return plan(facts, WORK, slots=slots, n_trials=n_trials, free_bytes=free)


def test_with_plenty_of_memory_a_third_of_the_trials_run_at_once(facts):
    plenty = 1 << 40
    assert [planned(facts, plenty, n_trials=n).slots for n in (1, 3, 4, 12, 24, 1000)] == [1, 1, 2, 4, 8, MOST_SLOTS]
    assert planned(facts, plenty, slots=50, n_trials=3).slots == 50
    assert planned(facts, plenty).tokens > 10_000


def test_every_planned_slot_has_room_for_a_row(facts):
    row = estimate(facts, WORK, 1)
    slot = row.adapter + row.gradients + row.optimizer + row.activations + row.logits
    for fit in (1, 2, 5):
        found = planned(facts, row.workspace + fit * slot + slot // 2)
        assert found.slots == fit
        assert found.tokens >= fit * WORK.tokens_per_row
    nothing = planned(facts, 0)
    assert (nothing.slots, nothing.tokens) == (1, WORK.tokens_per_row)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, None),
        ({"adapter": {"kind": "qlora"}}, None),
        ({"adapter": {"kind": "qlora", "quantization": "int8"}}, "int8 layers look for outliers"),
        ({"adapter": {"kind": "lora", "rslora": True, "init": "gaussian"}}, None),
        ({"adapter": {"kind": "lora", "dora": True}}, "dora divides by the norm of the whole weights"),
        ({"adapter": {"kind": "lora", "init": "pissa"}}, "init pissa changes the base's weights"),
        ({"adapter": {"kind": "lora", "init": "eva"}}, "init eva is computed before training"),
        ({"adapter": {"kind": "qlora", "lora_plus": 16}}, "lora_plus gives A and B different learning rates"),
        ({"adapter": "prefix", "search": {"space": {}}}, "adapter prefix is not LoRA"),
        ({"adapter": "full", "search": {"space": {}}}, "adapter full is not LoRA"),
        ({"search": {"space": {"rslora": [True, False], "init": ["default", "orthogonal"]}}}, None),
        ({"search": {"space": {"dora": [True, False]}}}, "dora divides"),
        ({"search": {"space": {"init": ["default", "olora"]}}}, "init olora changes the base's"),
        ({"evaluation": {"objectives": ["training_time"]}}, "training_time is an objective"),
        ({"evaluation": {"objectives": ["adapter_size", "latency"]}}, None),
        ({"search": {"space": {"optim": ["adamw_torch", "adafactor"]}}}, None),
        ({"search": {"space": {"optim": ["adamw_torch", "lomo"]}}}, "optim lomo needs the whole model"),
        ({"search": {"space": {"optim": "muon"}}}, "optim muon needs the whole model"),
        ({"search": {"space": {"neftune_noise_alpha": 5.0}}}, "neftune_noise_alpha belongs to TRL's trainer"),
        ({"adapter": {"choice": ["lora", "qlora"]}}, "different base models (dense, nf4)"),
        ({"adapter": {"choice": ["qlora", {"kind": "qlora", "rslora": True}]}}, None),
        ({"adapter": {"choice": [{"kind": "qlora", "quantization": "int8"}]}}, "int8 layers look for outliers"),
        ({"model": {"choice": ["a", "b"]}}, "different base models (a, b)"),
        ({"search": {"space": {"adam_beta2": {"low": 0.9, "high": 0.999}, "truncation_mode": "keep_end"}}}, None),
    ],
)
def test_what_a_study_file_says_against_packing(study_file, parts, said):
    config = study_file(**parts).config
    found = obstacle_in_study(config, config.search.space)
    assert found is None if said is None else said in found


def test_the_ranges_of_single_alternatives_count_too(study_file):
    config = study_file(adapter={"choice": ["lora", {"kind": "lora", "rslora": True}]}).config
    space = {"adapter": config.search.space["lora_rank"], "lora.optim": Fixed(value="lomo")}
    assert obstacle_in_study(config, space) == "optim lomo needs the whole model"
    several = {"adapter": Choice(choice=("lora", "lora rslora=True")), "lora.lora_plus": Fixed(value=4)}
    assert "lora_plus" in obstacle_in_study(config, several)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bases_that_pack(base_of, kind, family, dtype):
    assert obstacle_in_base(base_of(family, kind, dtype)) is None


@pytest.mark.parametrize(
    ("family", "more", "said"),
    [
        ("gpt2", {"resid_pdrop": 0.1}, "its own dropout"),
        ("gpt2", {"attn_pdrop": 0.1}, "its own dropout"),
        ("llama", {"attention_dropout": 0.1}, "its own dropout"),
        ("gemma3", {"final_logit_softcapping": 5.0}, "gives concatenated documents other losses"),
    ],
)
def test_bases_that_do_not(base_of, family, more, said):
    base = base_of(family, **more)
    state = torch.get_rng_state()
    assert said in obstacle_in_base(base)
    assert not base.model.training
    assert base.model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)


def test_a_base_that_cannot_take_documents_says_so(base_of, monkeypatch):
    base = base_of()

    def refuse(*_, **__):
        raise TypeError("unexpected keyword argument 'position_ids'")

    monkeypatch.setattr(base.model.base_model, "forward", refuse)
    assert "does not take concatenated documents (TypeError" in obstacle_in_base(base)
    monkeypatch.setattr(base, "dtype", torch.float16)
    assert "float16 needs a separate loss scale" in obstacle_in_base(base)
