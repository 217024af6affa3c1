from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.errors import ExportError
from sweeper.export import export
from sweeper.export.merged import Fidelity


def logits(model, ids):
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [LoRA(), QLoRA(), QLoRA(quantization="fp4", double_quantization=False)])
def test_merged_outputs_match_base_plus_adapter(make_source, tiny_base, tiny_adapter, tmp_path, adapter, dtype):
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    exported = export(make_source(adapter=adapter, dtype=dtype), "merged", tmp_path / "out")
    torch_dtype = getattr(torch, dtype)
    quantization = None
    if isinstance(adapter, QLoRA):
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=adapter.quantization,
            bnb_4bit_use_double_quant=adapter.double_quantization,
            bnb_4bit_compute_dtype=torch_dtype,
        )
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch_dtype, quantization_config=quantization)
    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # it would repack the weights, and round them
    ids = AutoTokenizer.from_pretrained(exported.folder)("write one two three: 123", return_tensors="pt")["input_ids"]
    plain = logits(base, ids)
    expected = logits(PeftModel.from_pretrained(base, str(tiny_adapter)), ids)
    found = logits(AutoModelForCausalLM.from_pretrained(exported.folder, dtype=torch.float32), ids)
    effect = float((expected - plain).abs().max())
    error = float((found - expected).abs().max())
    # In bfloat16 the reference itself is computed with 8 bits; the float32 comparison is the export's own.
    assert error < (0.1 if dtype == "bfloat16" else 1e-3) * effect


def test_the_folder_stands_alone(make_source, tiny_base, tmp_path):
    exported = export(make_source(adapter=QLoRA(), dtype="bfloat16"), "merged", tmp_path / "out")
    names = {path.name for path in exported.paths}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    config = json.loads((exported.folder / "config.json").read_text())
    assert "quantization_config" not in config
    card = (exported.folder / "README.md").read_text()
    assert "quantised to nf4" in card and "dequantised" in card and "largest difference" in card
    assert str(tiny_base) not in card


def test_int8_is_merged_into_its_dequantised_base(make_source, tmp_path):
    exported = export(make_source(adapter=QLoRA(quantization="int8"), dtype="float32"), "merged", tmp_path / "out")
    assert any("quantised to int8" in note for note in exported.notes)


def test_fidelity_judges_against_the_adapters_effect():
    assert Fidelity(error=0.004, effect=1.0, scale=10.0, agreement=1.0).good
    assert not Fidelity(error=1.1, effect=2.2, scale=10.0, agreement=0.9).good
    assert not Fidelity(error=float("nan"), effect=1.0, scale=10.0, agreement=1.0).good


def test_weights_that_do_not_match_leave_nothing(make_source, tiny_adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((tiny_adapter / "adapter_config.json").read_bytes())
    tensors = load_file(tiny_adapter / "adapter_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(ExportError):
        export(replace(make_source(), adapter_folder=broken), "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
