"""A trial of a TRL trainer, stopped and gone on with: its curve is that of one that never stopped, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_training_policy import policy_spec

from sweeper.config.adapter import IA3, Full, LoRA, Prefix, PTuning
from sweeper.config.technique import CPO, DPO, KTO, ORPO, Reward
from sweeper.config.trial import Decision, Outcome
from sweeper.paths import TrialPaths
from sweeper.training.checkpoint import is_kept
from sweeper.training.trial import train_trial

BUSY = {"lr_scheduler": "cosine", "lora_dropout": 0.3, "epochs": 3.0, "points": 5}
"""9 steps of 3 an epoch, evaluated after the 2nd, 4th, 6th, 8th and last; dropout draws random numbers all along."""


def kept(spec):
    return TrialPaths(spec.folder).frozen


class Stopping(tiny.Curve):
    """Interrupts at a step, when it is reported or when it is evaluated."""

    def __init__(self, at, when="step"):
        super().__init__()
        self.at, self.when = at, when

    def __call__(self, step, metrics):
        super().__call__(step, metrics)
        now = "step" if "loss" in metrics else "evaluation"
        return Decision.INTERRUPT if (step, now) == (self.at, self.when) else Decision.CONTINUE


def in_parts(spec, base, stops, micro_batch=8, evaluate=None):
    """Train a trial, stopped at every one of ``stops`` and gone on with each time."""
    curve, goes_on = tiny.Curve(), False
    for stop in stops:
        told = Stopping(*stop)
        result = train_trial(spec, base, told, micro_batch, evaluate, checkpoint_s=999, goes_on=goes_on)
        assert (result.outcome, result.steps) == (Outcome.INTERRUPTED, stop[0]), result.reason
        assert is_kept(TrialPaths(spec.folder))
        curve.steps |= told.steps
        curve.evaluations |= told.evaluations
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # whatever another process has done meanwhile
        goes_on = True
    rest = tiny.Curve()
    result = train_trial(spec, base, rest, micro_batch, evaluate, checkpoint_s=999, goes_on=goes_on)
    curve.steps |= rest.steps
    curve.evaluations |= rest.evaluations
    return result, curve


def require_equal(spec, base, stops, micro_batch=8, evaluate=None):
    """Train a trial in one go and in parts, and find no difference at all."""
    whole, expected = in_parts(spec, base, (), micro_batch, evaluate)
    assert whole.outcome is Outcome.COMPLETE, whole.reason
    weights = adapter(spec)
    result, curve = in_parts(spec, base, stops, micro_batch, evaluate)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert curve.steps == expected.steps
    assert curve.evaluations == expected.evaluations
    same = ("value", "metrics", "best_step", "steps", "total_steps", "epochs_trained", "tokens", "micro_batch")
    assert [getattr(result, name) for name in same] == [getattr(whole, name) for name in same]
    assert adapter(spec).keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in adapter(spec).items())
    assert not kept(spec).exists()


def adapter(spec):
    (path,) = spec.folder.glob("adapter/*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize(
    ("asked", "stops"),
    [
        (BUSY, [(1,), (3,), (4,), (6, "evaluation"), (8, "evaluation")]),
        ({"trl": {"optim": "adamw_bnb_8bit", "neftune_noise_alpha": 5}, "lora_dropout": 0.1}, [(2,), (5,)]),
    ],
    ids=["dropout", "8-bit and noise"],
)
def test_sft_goes_on_as_if_it_had_never_stopped(request, spec, kind, asked, stops):
    """Stopped within an epoch, at its end, between a step and its evaluation, and in an evaluation."""
    require_equal(spec(kind, **asked), request.getfixturevalue(f"{kind}_base"), stops, micro_batch=3)


PAIRS = {"dpo": DPO, "orpo": ORPO, "cpo": CPO, "reward": Reward}


@pytest.mark.parametrize("kind", [*PAIRS, "kto"])
def test_preferences_go_on_as_if_they_had_never_stopped(request, tiny_model, tmp_path, lora_base, kind):
    technique = {**PAIRS, "kto": KTO}[kind](max_length=64)
    shape = "unpaired" if kind == "kto" else "preference"
    asked = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=technique, **BUSY)
    base = request.getfixturevalue("score_base") if kind == "reward" else lora_base
    require_equal(asked, base, [(2,), (3,), (7,)])


@pytest.fixture
def score_base(tiny_model):
    from sweeper.config.model import ModelConfig
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu", "score")


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_policies_go_on_as_if_they_had_never_stopped(tiny_model, tmp_path, lora_base, kind):
    """Answers are drawn, and the order of the prompts in an epoch follows from those before."""
    asked = policy_spec(tiny_model, tmp_path, kind, longest=4, epochs=3.0, lora_dropout=0.1, metric="noise")

    def drawn(model):
        return {"noise": float(torch.rand(())) + random.random() + np.random.rand()}

    require_equal(asked, lora_base, [(2,), (3,), (3, "evaluation"), (7,)], micro_batch=16, evaluate=drawn)


@pytest.mark.parametrize(
    "adapter",
    [Prefix(), PTuning(), IA3(), LoRA(dora=True), LoRA(init="pissa"), LoRA(lora_plus=4.0), Full()],
    ids=lambda adapter: " ".join([adapter.kind, getattr(adapter, "init", "")]),
)
def test_every_kind_of_adapter_goes_on_as_if_it_had_never_stopped(tiny_model, tmp_path, lora_base, adapter):
    require_equal(tiny.trial_spec(tiny_model, tmp_path, adapter=adapter, rows=12), lora_base, [(1,), (2,), (3,)])
