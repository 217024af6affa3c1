"""A trial of a TRL trainer, stopped and gone on with: its curve is that of one that never stopped, bit for bit."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_training_policy import policy_spec
from variants import mostly_long

from sweeper.config.adapter import Full, LoRA, Prefix
from sweeper.config.technique import CPO, DPO, KTO, RewardModel
from sweeper.config.trial import Decision, Outcome
from sweeper.errors import StudyStateError
from sweeper.paths import TrialPaths
from sweeper.training.checkpoint import has_checkpoint
from sweeper.training.resumable_trainer import CheckpointPolicy
from sweeper.training.trial import train_trial

BUSY = {"lr_scheduler": "cosine", "lora_dropout": 0.3, "epochs": 3.0, "points": 5}
"""9 steps of 3 an epoch, evaluated after the 2nd, 4th, 6th, 8th and last; dropout draws random numbers all along."""

NOISY = {"trl": {"optim": "adamw_bnb_8bit", "neftune_noise_alpha": 5}, "lora_dropout": 0.1}

SELDOM, ALWAYS = (CheckpointPolicy(every_s, before=lambda: None) for every_s in (999.0, 0.0))


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
    curve, resume = tiny.Curve(), False
    for stop in stops:
        told = Stopping(*stop)
        result = train_trial(spec, base, told, micro_batch, evaluate, checkpoints=SELDOM, resume=resume)
        assert (result.outcome, result.steps) == (Outcome.INTERRUPTED, stop[0]), result.reason
        assert has_checkpoint(TrialPaths(spec.folder))
        curve.steps |= told.steps
        curve.evaluations |= told.evaluations
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # whatever another process has done meanwhile
        resume = True
    rest = tiny.Curve()
    result = train_trial(spec, base, rest, micro_batch, evaluate, checkpoints=SELDOM, resume=resume)
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
        pytest.param(BUSY, [(3,), (8, "evaluation")], id="dropout"),
        pytest.param(NOISY, [(2,)], id="8-bit and noise", marks=pytest.mark.long),
    ],
)
def test_sft_goes_on_as_if_it_had_never_stopped(request, spec, kind, asked, stops):
    """Stopped within an epoch, at its end, between a step and its evaluation, and in an evaluation."""
    require_equal(spec(kind, **asked), request.getfixturevalue(f"{kind}_base"), stops, micro_batch=3)


PAIRS = {"dpo": DPO, "cpo": CPO, "reward": RewardModel}


@pytest.mark.parametrize("kind", mostly_long([*PAIRS, "kto"], "dpo", "reward"))
def test_preferences_go_on_as_if_they_had_never_stopped(request, tiny_model, tmp_path, lora_base, kind):
    technique = {**PAIRS, "kto": KTO}[kind](max_length=64)
    shape = "unpaired" if kind == "kto" else "preference"
    asked = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=technique, **BUSY)
    base = request.getfixturevalue("score_base") if kind == "reward" else lora_base
    require_equal(asked, base, [(6,)])


@pytest.fixture
def score_base(tiny_model):
    from sweeper.config.model import ModelConfig
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu", "score")


@pytest.mark.parametrize("kind", mostly_long(["grpo", "rloo"], "grpo"))
def test_policies_go_on_as_if_they_had_never_stopped(tiny_model, tmp_path, lora_base, kind):
    """Answers are drawn, and the order of the prompts in an epoch follows from those before."""
    asked = policy_spec(tiny_model, tmp_path, kind, longest=4, epochs=3.0, lora_dropout=0.1)

    def drawn(model):
        return {"mean_reward": float(torch.rand(())) + random.random() + np.random.rand()}

    require_equal(asked, lora_base, [(6, "evaluation")], micro_batch=16, evaluate=drawn)


@pytest.mark.parametrize(
    "adapter",
    mostly_long([Prefix(), LoRA(init="pissa"), LoRA(lora_plus=4.0), Full()], Prefix()),
    ids=lambda adapter: " ".join([adapter.kind, getattr(adapter, "init", "")]),
)
def test_every_kind_of_adapter_goes_on_as_if_it_had_never_stopped(tiny_model, tmp_path, lora_base, adapter):
    require_equal(tiny.trial_spec(tiny_model, tmp_path, adapter=adapter, rows=12), lora_base, [(2,)])


class Killed(BaseException):
    """What no trial survives."""


def killed_at(step):
    def report(at, metrics):
        if at == step:
            raise Killed
        return Decision.CONTINUE

    return report


def test_what_a_kill_cut_short_is_repeated_from_the_last_checkpoint(spec, lora_base):
    asked = spec(**BUSY)
    _, expected = in_parts(asked, lora_base, ())
    with pytest.raises(Killed):
        train_trial(asked, lora_base, killed_at(5), 8, checkpoints=ALWAYS)
    rest = tiny.Curve()
    result = train_trial(asked, lora_base, rest, 8, resume=True)
    assert (result.outcome, result.steps) == (Outcome.COMPLETE, 9)
    assert rest.steps == {step: of for step, of in expected.steps.items() if step > 4}
    assert rest.evaluations == {step: of for step, of in expected.evaluations.items() if step > 4}
    assert result.train_seconds > 0


def test_a_trial_is_not_kept_before_its_time_nor_where_nobody_asks(spec, lora_base):
    for checkpoints in (None, SELDOM):
        with pytest.raises(Killed):
            train_trial(spec(), lora_base, killed_at(5), 8, checkpoints=checkpoints)
        assert not kept(spec()).exists()
    assert train_trial(spec(), lora_base, Stopping(2), 8).outcome is Outcome.INTERRUPTED
    assert not has_checkpoint(TrialPaths(spec().folder))


@pytest.fixture
def stopped(spec, lora_base):
    """A trial that was stopped after its second step; its specification."""
    result = train_trial(spec(), lora_base, Stopping(2), 8, checkpoints=SELDOM)
    assert result.outcome is Outcome.INTERRUPTED
    assert sorted(path.name for path in kept(spec()).iterdir()) == [
        "checkpoint.json",
        "checkpoint.safetensors",
        "seal.json",
        "trainer_state.json",
    ]
    return spec()


def test_fewer_rows_at_a_time_go_on_and_more_are_not_taken(stopped, lora_base):
    result = train_trial(stopped, lora_base, tiny.Curve(), 3, checkpoints=SELDOM, resume=True)
    assert (result.outcome, result.micro_batch, result.steps) == (Outcome.COMPLETE, 3, 6)


def test_a_trial_that_begins_anew_leaves_nothing_of_the_one_before(stopped, lora_base):
    curve = tiny.Curve()
    with pytest.raises(Killed):
        train_trial(stopped, lora_base, killed_at(1), 8)
    assert not kept(stopped).exists()
    assert train_trial(stopped, lora_base, curve, 8).steps == len(curve.steps) == 6


def test_a_beginning_that_is_not_found_again_begins_the_trial_again(tiny_model, tmp_path, lora_base):
    asked = tiny.trial_spec(tiny_model, tmp_path, adapter=LoRA(init="pissa"), rows=12)
    _, expected = in_parts(asked, lora_base, ())
    train_trial(asked, lora_base, Stopping(2), 8, checkpoints=SELDOM)
    rest = kept(asked) / "checkpoint.json"
    rest.write_text(json.dumps({**json.loads(rest.read_text()), "begun_with": "rounded otherwise"}))
    curve = tiny.Curve()
    assert train_trial(asked, lora_base, curve, 8, resume=True).outcome is Outcome.COMPLETE
    assert curve.steps == expected.steps


@pytest.mark.parametrize(
    "damage", ["cut", "no json", "no tensors", "no state", "garbage", "a field gone", "another device", "other shapes"]
)
def test_what_is_damaged_is_named(stopped, lora_base, damage):
    tensors, rest = kept(stopped) / "checkpoint.safetensors", kept(stopped) / "checkpoint.json"
    fields = json.loads(rest.read_text())
    match damage:
        case "cut":
            tensors.write_bytes(tensors.read_bytes()[:-100])
        case "no json":
            rest.unlink()
        case "no tensors":
            tensors.unlink()
        case "no state":
            (kept(stopped) / "trainer_state.json").unlink()
        case "garbage":
            rest.write_text("{")
        case "a field gone":
            rest.write_text(json.dumps({name: value for name, value in fields.items() if name != "scheduler"}))
        case "another device":
            rest.write_text(json.dumps({**fields, "device": "cuda"}))
        case "other shapes":
            save_file(
                {
                    name: torch.zeros(7) if name.startswith("weights") else value
                    for name, value in load_file(tensors).items()
                },
                tensors,
            )
    assert has_checkpoint(TrialPaths(stopped.folder)) == (damage != "no json")
    with pytest.raises(StudyStateError, match=r"cannot resume from the checkpoint in .*frozen .*restarts the trial"):
        train_trial(stopped, lora_base, tiny.Curve(), 8, resume=True)
