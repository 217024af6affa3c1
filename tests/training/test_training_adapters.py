"""Every kind of adapter, on dense, 4-bit and 8-bit bases: it learns, leaves no trace, and loads elsewhere."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import PeftModel
from test_training_base_model import assert_untouched, state, traces
from test_training_trial import eval_loss
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sweeper.config.adapter import IA3, Full, LoRA, Prefix, Prompt, PTuning, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.trial import Outcome
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


@pytest.mark.parametrize("name", [*DENSE, *QUANTISED])
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
