"""The micro-batch a trial begins with: asked for, estimated, or remembered."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from sweeper.config.trial import Outcome, TrialResult
from sweeper.executors import micro_batches
from sweeper.executors.lifecycle.claims import ask
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.executors.micro_batches import MicroBatches
from sweeper.models.memory import Workload, estimate
from sweeper.paths import cache_folder

AT = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def context(begin):
    return begin(search={"space": {"batch_size": 16, "lora_rank": 4, "epochs": 1}})


@pytest.fixture
def spec(context):
    return specification(context, ask(context))


@pytest.fixture
def planner(context):
    """A planner that needs no more of the base model than what it computes in."""
    return MicroBatches(context, SimpleNamespace(dtype=torch.bfloat16, attention="sdpa", device="cpu"))


def on_gpu(spec):
    return spec.model_copy(update={"device": "cuda:0"})


def ended(spec, micro_batch, outcome=Outcome.COMPLETE):
    return TrialResult(
        number=0, outcome=outcome, micro_batch=micro_batch, device=spec.device, started_at=AT, finished_at=AT
    )


def test_what_the_file_asks_for_is_taken(planner, spec):
    assert planner.plan(spec.model_copy(update={"micro_batch": 3})) == 3
    assert planner.plan(spec.model_copy(update={"micro_batch": 999})) == 16


def test_on_the_cpu_the_estimate_decides(planner, spec, context, monkeypatch):
    assert planner.plan(spec) == 16
    model = context.model_of(spec)
    work = Workload(spec.adapter, 4, spec.hyperparameters.target_modules, model.tokens_per_row, "bfloat16")
    for rows, expected in ((16, 16), (15, 8), (5, 4), (1, 1)):
        need = estimate(model.facts, work, rows).beyond_base
        monkeypatch.setattr(micro_batches, "free_memory_bytes", lambda device, need=need: need / 0.8 + 2)
        assert planner.plan(spec) == expected
    monkeypatch.setattr(micro_batches, "free_memory_bytes", lambda device: 1000)
    assert planner.plan(spec) == 0


def test_on_the_cpu_nothing_is_remembered(planner, spec):
    planner.learn(spec, 16, ended(spec, 2))
    assert not (cache_folder() / "micro_batches.json").exists()


def test_on_a_gpu_the_whole_batch_is_tried_until_it_is_known_not_to_fit(context, planner, spec):
    spec = on_gpu(spec)
    assert planner.plan(spec) == 16
    planner.learn(spec, 16, ended(spec, 4))
    assert planner.plan(spec) == 4
    again = MicroBatches(context, SimpleNamespace(dtype=torch.bfloat16, attention="sdpa", device="cpu"))
    assert again.plan(spec) == 4  # remembered on disk
    smaller = spec.model_copy(update={"hyperparameters": spec.hyperparameters.model_copy(update={"batch_size": 8})})
    assert again.plan(smaller) == 8  # not known to fail
    wider = spec.model_copy(update={"hyperparameters": spec.hyperparameters.model_copy(update={"lora_rank": 8})})
    assert again.plan(wider) == 16  # another rank, another question
    planner.learn(smaller, 8, ended(smaller, 8))
    assert again.plan(spec) == 8


def test_a_trial_that_did_not_run_teaches_nothing(planner, spec):
    spec = on_gpu(spec)
    for outcome in (Outcome.FAILED, Outcome.DIVERGED, Outcome.INTERRUPTED):
        planner.learn(spec, 16, ended(spec, 2, outcome))
    assert planner.plan(spec) == 16


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 3}', '{"key": ["a", "b"]}', "null", '{"key": [1]}', "\x00"])
def test_a_damaged_file_is_only_forgotten(planner, spec, text):
    file = cache_folder() / "micro_batches.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    spec = on_gpu(spec)
    assert planner.plan(spec) == 16
    planner.learn(spec, 16, ended(spec, 4))
    assert list(json.loads(file.read_text()).values()) == [[4, 16]]
