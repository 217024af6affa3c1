"""Every kind of adapter, on dense, 4-bit and 8-bit bases: it learns, leaves no trace, and loads elsewhere."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import PeftModel
from test_training_base_model import assert_untouched, state, traces
from test_training_trial import eval_loss
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from variants import mostly_long

from sweeper.config.adapter import IA3, Full, LoHa, LoRA, Prefix, Prompt, PTuning, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.trial import Outcome
from sweeper.evaluation.generation import generate
from sweeper.training.base_model import load_base
from sweeper.training.trial import train_trial

RATES = {"prefix": 3e-2, "prompt": 3e-1, "p_tuning": 1e-2, "ia3": 3e-1, "full": 3e-3}
DENSE = {
    "rslora": LoRA(rslora=True),
    "dora": LoRA(dora=True),
    "gaussian": LoRA(init="gaussian"),
    "orthogonal": LoRA(init="orthogonal"),
    "pissa": LoRA(init="pissa"),
    "pissa with rslora": LoRA(init="pissa", rslora=True),
    "olora": LoRA(init="olora"),
    "eva": LoRA(init="eva"),
    "lora+": LoRA(lora_plus=16),
    "prefix": Prefix(virtual_tokens=4),
    "prefix, projected": Prefix(virtual_tokens=4, projection=True, projection_size=32),
    "prompt": Prompt(virtual_tokens=4),
    "prompt, vocabulary": Prompt(virtual_tokens=4, init="vocabulary"),
    "prompt, text": Prompt(virtual_tokens=4, init="text", init_text="write the digits"),
    "p_tuning": PTuning(virtual_tokens=4),
    "p_tuning, lstm": PTuning(virtual_tokens=4, encoder="lstm", encoder_size=32),
    "ia3": IA3(),
    "loha": LoHa(),
    "full": Full(),
}
QUANTISED = {
    f"{name} on {quantization}": adapter.model_copy(update={"quantization": quantization})
    for quantization in ("nf4", "fp4", "int8")
    for name, adapter in {
        "rslora": QLoRA(rslora=True),
        "dora": QLoRA(dora=True),
        "gaussian": QLoRA(init="gaussian"),
        "eva": QLoRA(init="eva"),
        "lora+": QLoRA(lora_plus=16),
        "prefix": Prefix(virtual_tokens=4, projection=True),
        "prompt": Prompt(virtual_tokens=4),
        "p_tuning": PTuning(virtual_tokens=4),
        "ia3": IA3(),
    }.items()
    if (quantization != "fp4" or name in ("dora", "prefix")) and (quantization, name) != ("int8", "dora")
}

OFTEN = ("dora on nf4", "prefix on fp4", "full", "prefix", "ia3", "loha", "dora", "pissa", "eva", "prompt", "p_tuning")
"""The others differ from one of these by an option, and are trained by the table of what is supported too."""


@pytest.fixture(scope="module")
def base_for(tiny_model):
    """One base for all tests of a quantisation: that trials leave it as it was is among what is tested."""
    found = {}

    def base(adapter):
        key = getattr(adapter, "quantization", None)
        if key not in found:
            found[key] = load_base(tiny_model, ModelConfig(name="tiny"), adapter, "cpu")
        return found[key]

    return base


def elsewhere(spec):
    """What the trial saved, as somebody without sweeper loads it, on a base of its own."""
    folder = spec.folder / "adapter"
    if (folder / "config.json").is_file():
        assert len(AutoTokenizer.from_pretrained(folder)) == len(AutoTokenizer.from_pretrained(spec.model_folder))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    quantization = getattr(spec.adapter, "quantization", None)
    bits = None
    if quantization == "int8":
        bits = BitsAndBytesConfig(load_in_8bit=True)
    elif quantization is not None:
        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    base = AutoModelForCausalLM.from_pretrained(spec.model_folder, dtype=torch.float32, quantization_config=bits)
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # it would repack the weights, and round them
    return PeftModel.from_pretrained(base, folder).eval()


@pytest.mark.parametrize("name", mostly_long([*DENSE, *QUANTISED], *OFTEN))
def test_it_learns_leaves_no_trace_and_loads_elsewhere(base_for, tiny_model, tmp_path, name):
    adapter = {**DENSE, **QUANTISED}[name]
    base = base_for(adapter)
    weights, before = state(base.model), traces(base.model)
    asked = {"shape": "same_answer", "learning_rate": RATES.get(adapter.kind, 1e-2), "epochs": 3.0}
    spec = tiny.trial_spec(tiny_model, tmp_path, adapter=adapter, **asked)
    curve = tiny.Curve()
    result = train_trial(spec, base, curve, 8)
    assert result.outcome is Outcome.COMPLETE, result.reason
    losses = curve.of("eval_loss")
    assert losses[-1] < losses[0]
    assert_untouched(base.model, weights, before)
    assert eval_loss(elsewhere(spec), spec) == pytest.approx(result.value, rel=2e-2 if "int8" in name else 1e-4)
    with base.with_adapter(spec.folder / "adapter") as model:
        assert eval_loss(model, spec) == pytest.approx(result.value, rel=2e-2 if "int8" in name else 1e-4)
    assert_untouched(base.model, weights, before)
    again = tiny.Curve()
    repeated = train_trial(spec.model_copy(update={"folder": tmp_path / "again"}), base, again, 8)
    assert again.steps == curve.steps
    assert repeated.adapter_sha256 == result.adapter_sha256


@pytest.mark.parametrize("name", ["prefix", "prompt", "p_tuning"])
def test_answers_behind_virtual_tokens_are_those_of_each_prompt_alone(base_for, tiny_model, tmp_path, name):
    spec = tiny.trial_spec(tiny_model, tmp_path, adapter=DENSE[name], learning_rate=0.1)
    base = base_for(spec.adapter)
    train_trial(spec, base, tiny.Curve(), 8)
    prompts = ["write one:", "write two three four:", "write five:", "write six seven:"]
    with base.with_adapter(spec.folder / "adapter") as model:
        answers = generate(model, base.tokenizer, prompts, max_new_tokens=5)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer == greedily(model, base.tokenizer, prompt, 5)


def greedily(model, tokenizer, prompt, count):
    """The most likely tokens by whole forward passes, as training runs them."""
    ids = tokenizer(prompt)["input_ids"]
    answer = []
    with torch.no_grad():
        while len(answer) < count and (not answer or answer[-1] != tokenizer.eos_token_id):
            answer.append(int(model(torch.tensor([ids + answer])).logits[0, -1].argmax()))
    return tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("name", mostly_long(["dora", "prefix", "prompt", "p_tuning", "ia3", "full"], "dora", "prefix"))
def test_the_micro_batch_changes_nothing(base_for, tiny_model, tmp_path, name):
    curves = []
    for rows in (3, 8):
        spec = tiny.trial_spec(tiny_model, tmp_path / str(rows), adapter=DENSE[name], learning_rate=1e-3)
        curves.append(tiny.Curve())
        train_trial(spec, base_for(spec.adapter), curves[-1], rows)
    for metric in ("loss", "grad_norm", "eval_loss"):
        assert curves[0].of(metric) == pytest.approx(curves[1].of(metric), rel=1e-3)


def test_lora_plus_raises_the_rate_of_b_alone(base_for, tiny_model, tmp_path):
    from sweeper.training.adapters import peft_config
    from sweeper.training.micro_batch import MicroBatch
    from sweeper.training.reporting import BestEvaluation, ReportingCallback
    from sweeper.training.techniques import build_trainer

    spec = tiny.trial_spec(tiny_model, tmp_path, adapter=LoRA(lora_plus=16), learning_rate=1e-3, weight_decay=0.5)
    base = base_for(spec.adapter)
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), 0) as model:
        callback = ReportingCallback(tiny.Curve(), BestEvaluation("eval_loss", maximize=False), 1, None)
        trainer = build_trainer(spec, base, model, MicroBatch(8), callback)
        names = {id(weight): name for name, weight in model.named_parameters()}
        for group in trainer.optimizer.param_groups:
            for weight in group["params"]:
                assert group["lr"] == (1.6e-2 if "lora_B" in names[id(weight)] else 1e-3)
                assert group["weight_decay"] == 0.5
        assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == 2 * 2 * 7


def test_one_is_plain_lora(base_for, tiny_model, tmp_path):
    curves = []
    for ratio in (None, 1):
        spec = tiny.trial_spec(tiny_model, tmp_path / str(ratio), adapter=LoRA(lora_plus=ratio))
        curves.append(tiny.Curve())
        train_trial(spec, base_for(spec.adapter), curves[-1], 8)
    assert curves[0].of("eval_loss") == pytest.approx(curves[1].of("eval_loss"), rel=1e-5)


@pytest.mark.parametrize("name", ["pissa", "eva"])
def test_a_start_of_its_own_begins_where_the_base_is(base_for, tiny_model, tmp_path, name):
    """Before the first step the base with its adapter still says what the base says."""
    plain, started = tiny.Curve(), tiny.Curve()
    for curve, adapter in ((plain, LoRA()), (started, DENSE[name])):
        spec = tiny.trial_spec(tiny_model, tmp_path, adapter=adapter)
        train_trial(spec, base_for(adapter), curve, 8)
    assert started.of("loss")[0] == pytest.approx(plain.of("loss")[0], rel=1e-4)
    assert started.of("loss")[-1] != plain.of("loss")[-1]


def test_a_broken_trial_gives_the_base_its_weights_back(base_for, tiny_model, tmp_path):
    def broken(step, metrics):
        raise RuntimeError("the disk is gone")

    base = base_for(LoRA())
    weights, before = state(base.model), traces(base.model)
    for name in ("pissa", "prefix", "ia3", "loha", "full"):
        result = train_trial(tiny.trial_spec(tiny_model, tmp_path, adapter=DENSE[name]), base, broken, 8)
        assert (result.outcome, result.reason) == (Outcome.FAILED, "RuntimeError: the disk is gone")
        assert_untouched(base.model, weights, before)
        assert base.initial is None
