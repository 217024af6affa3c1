"""How a trial ends: what it keeps, what it says, and what it leaves on disk."""

from __future__ import annotations

import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import Curve
from transformers import AutoModelForCausalLM, AutoTokenizer

from sweeper.config.backend import TRL
from sweeper.config.trial import Decision, Outcome, TrialResult, TrialSpec
from sweeper.data.splits import read_prepared
from sweeper.evaluation.scorer import score
from sweeper.training.backends.base import TrainingBackend
from sweeper.training.trial import train_trial


def on_disk(spec):
    return sorted(path.relative_to(spec.folder).as_posix() for path in spec.folder.rglob("*") if path.is_file())


def eval_loss(model, spec):
    """The validation loss per token, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    total, tokens = 0.0, 0
    for row in read_prepared(spec.validation):
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"])["input_ids"] + [tokenizer.eos_token_id]
        start = next((n for n, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -len(ids) : -1].log_softmax(-1)  # behind virtual tokens
        picked = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][start - 1 :]
        total, tokens = total - float(picked.sum()), tokens + len(picked)
    return total / tokens


def test_a_complete_trial_and_its_adapter(lora_base, train, spec):
    result, curve = train(lora_base)
    asked = spec()
    assert result.outcome is Outcome.COMPLETE
    assert result.reason is None
    assert (result.dtype, result.attention, result.device) == ("float32", "sdpa", "cpu")
    assert result.value == min(curve.of("eval_loss"))
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.value))
    assert result.train_seconds > 0
    assert result.peak_memory_bytes > 10_000_000
    assert on_disk(asked) == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "result.json",
        "spec.json",
    ]
    weights = asked.folder / "adapter" / "adapter_model.safetensors"
    assert weights.stat().st_size == result.adapter_bytes
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float32}
    assert TrialSpec.model_validate_json((asked.folder / "spec.json").read_text()) == asked
    assert TrialResult.model_validate_json((asked.folder / "result.json").read_text()) == result


def test_plain_peft_loads_the_adapter_and_finds_the_same_loss(lora_base, train, spec):
    result, _ = train(lora_base)
    base = AutoModelForCausalLM.from_pretrained(spec().model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, spec().folder / "adapter").eval()
    assert eval_loss(model, spec()) == pytest.approx(result.value, rel=1e-4)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_the_adapter_kept_is_the_best_not_the_last(request, spec, kind):
    base, curve = request.getfixturevalue(f"{kind}_base"), Curve()
    # It learns to answer " one" to everything, which the validation rows do not want.
    asked = spec(kind, shape="same_answer", learning_rate=3e-2, epochs=6.0, points=18)
    asked = asked.model_copy(update={"validation": spec(kind).validation})
    result = train_trial(asked, base, curve, 8)
    losses = curve.of("eval_loss")
    assert losses[-1] > 1.05 * min(losses)
    assert result.value == min(losses)
    assert result.best_step == min(curve.evaluations, key=lambda step: curve.evaluations[step]["eval_loss"])
    with base.with_adapter(asked.folder / "adapter") as model:
        assert eval_loss(model, asked) == pytest.approx(result.value, rel=1e-4)


def test_a_task_metric_decides_where_it_is_asked_for(lora_base, train, spec):
    asked = {"shape": "same_answer", "metric": "exact_match", "learning_rate": 3e-2, "epochs": 4.0}
    rows = read_prepared(spec(**asked).validation)

    def evaluate(model):
        scores = score(model, lora_base.tokenizer, rows, spec(**asked).evaluation)
        return {"exact_match": scores.metrics["exact_match"].value}

    result, curve = train(lora_base, evaluate=evaluate, **asked)
    assert result.outcome is Outcome.COMPLETE
    assert result.value == max(curve.of("exact_match")) == 1.0
    assert result.metrics.keys() == {"eval_loss", "perplexity", "exact_match"}


def test_a_missing_metric_fails_the_trial_and_is_not_swapped(lora_base, train, spec):
    result, _ = train(lora_base, metric="rougeL")
    assert result.outcome is Outcome.FAILED
    assert result.reason == "TrialError: the evaluation gave no rougeL; it gave eval_loss, perplexity"
    assert on_disk(spec(metric="rougeL")) == ["error.txt", "result.json", "spec.json"]


@pytest.mark.parametrize(
    ("decision", "outcome", "reason"),
    [
        (Decision.PRUNE, Outcome.PRUNED, "worse than other trials at the same progress"),
        (Decision.INTERRUPT, Outcome.INTERRUPTED, "stopped by the user"),
    ],
)
@pytest.mark.parametrize("at", [2, 3], ids=["at an evaluation", "between evaluations"])
def test_a_trial_that_is_told_to_stop(lora_base, train, spec, decision, outcome, reason, at):
    result, curve = train(lora_base, curve=Curve(decision, at))
    assert (result.outcome, result.reason, result.value) == (outcome, reason, None)
    assert (result.steps, max(curve.steps)) == (at, at)
    assert result.epochs_trained == pytest.approx(at / 3)
    assert result.metrics["eval_loss"] == min(curve.of("eval_loss"))  # the curve so far is kept
    assert on_disk(spec()) == ["result.json", "spec.json"]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_rate_that_is_far_too_high_diverges(request, train, spec, kind):
    base = request.getfixturevalue(f"{kind}_base")
    result, _ = train(base, kind, learning_rate=1e30, max_grad_norm=1e9)
    assert result.outcome is Outcome.DIVERGED
    assert result.reason.startswith("the loss is nan at step") or result.reason.startswith("the eval_loss is nan")
    assert result.value is None
    assert on_disk(spec(kind)) == ["result.json", "spec.json"]
    json.loads((spec(kind).folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert train(base, kind, number=1)[0].outcome is Outcome.COMPLETE


def test_a_loss_that_is_no_number_diverges_where_a_task_metric_decides_too(lora_base, train):
    result, _ = train(
        lora_base,
        metric="exact_match",
        evaluate=lambda model: {"exact_match": 0.0},
        learning_rate=1e30,
        max_grad_norm=1e9,
        points=6,
    )
    assert result.outcome is Outcome.DIVERGED
    assert result.reason == "the eval_loss is nan at step 1"


def test_what_an_earlier_study_left_in_the_folder_is_not_taken_for_this_trials(lora_base, train, spec):
    train(lora_base)
    assert (spec().folder / "adapter").is_dir()
    result, _ = train(lora_base, curve=Curve(Decision.PRUNE, 2))
    assert result.outcome is Outcome.PRUNED
    assert on_disk(spec()) == ["result.json", "spec.json"]


def test_latency_is_measured_where_it_is_an_objective(lora_base, train):
    assert train(lora_base)[0].latency_ms is None
    result, _ = train(lora_base, objectives=("latency", "adapter_size"))
    assert 0 < result.latency_ms < 1000


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # torch warns of what it does itself while it traces
def test_a_compiled_trial_trains_what_a_plain_one_does(new_base, train, monkeypatch):
    """With the compiler that changes nothing: what is tried is the way there, and another takes minutes."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    plain, expected = train(new_base("lora"))
    torch._dynamo.utils.counters.clear()
    base = new_base("lora")
    base.backend = TrainingBackend(TRL(compile=True))
    for _ in range(2):  # the base is left as it was found
        result, curve = train(base, trl={"torch_compile_backend": "eager"})
        assert result.outcome is Outcome.COMPLETE, result.reason
        assert curve.of("loss") == pytest.approx(expected.of("loss"), rel=1e-5)
        assert result.value == pytest.approx(plain.value, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
