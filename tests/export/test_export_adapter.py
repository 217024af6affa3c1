from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sweeper.config.adapter import QLoRA
from sweeper.errors import ExportError
from sweeper.export import export


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_adapter_is_portable_and_loads_with_plain_peft(make_source, tiny_base, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source = make_source()
    exported = export(source, "adapter", tmp_path / "out")
    names = {path.name for path in exported.paths}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "sweeper-export.json"}
    config = json.loads((exported.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/tiny-llama"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(exported.folder))
    assert model.peft_config["default"].r == 4


def test_the_card_tells_everything_and_names_no_path(make_source, tiny_base, tmp_path):
    source = make_source(adapter=QLoRA(), dtype="bfloat16")
    folder = export(source, "adapter", tmp_path / "out").folder
    card = (folder / "README.md").read_text()
    front = front_matter(card)
    assert front["base_model"] == "someone/tiny-llama"
    assert (front["library_name"], front["license"]) == ("peft", "apache-2.0")
    for part in (
        "0.9 (0.85 to 0.94)",
        "+0.9 (+0.85 to +0.94)",
        source.train.sha256,
        "bnb_4bit_quant_type",
        "best of 12",
    ):
        assert part in card
    for file in folder.glob("*.*"):
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(tiny_base).encode() not in file.read_bytes()


def test_the_code_in_the_card_runs(make_source, tiny_base, tmp_path, monkeypatch):
    source = make_source(adapter=QLoRA(), dtype="bfloat16")
    folder = export(source, "adapter", tmp_path / "numbers").folder
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("someone/tiny-llama", str(tiny_base)), names)
    assert names["model"].peft_config["default"].r == 4


def test_a_base_without_a_hub_name_is_called_by_its_own(make_source, tmp_path):
    source = make_source()
    source = replace(
        source, base=replace(source.base, hub_id=None, name="/home/someone/models/tiny-llama", licence=None)
    )
    folder = export(source, "adapter", tmp_path / "out").folder
    card = (folder / "README.md").read_text()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-llama"
    assert "license" not in front_matter(card)
    assert "local folder" in card and "/home/" not in card


def test_an_adapter_of_another_base_does_not_verify(make_source, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    ).save_pretrained(other)
    source = make_source()
    source = replace(source, base=replace(source.base, folder=other))
    with pytest.raises(ExportError, match="does not verify"):
        export(source, "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_missing_and_nonfinite_weights_are_refused(make_source, tiny_adapter, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((tiny_adapter / "adapter_config.json").read_bytes())
    with pytest.raises(ExportError, match="has no adapter_model"):
        export(make_source(adapter_folder=broken), "adapter", tmp_path / "out")
    tensors = load_file(tiny_adapter / "adapter_model.safetensors")
    first = sorted(tensors)[0]
    save_file({**tensors, first: torch.full_like(tensors[first], float("nan"))}, broken / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="finite"):
        export(make_source(adapter_folder=broken), "adapter", tmp_path / "out")
    save_file({name: t for name, t in tensors.items() if name != first}, broken / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="does not verify"):
        export(make_source(adapter_folder=broken), "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_of_the_machine_are_found(make_source, tmp_path):
    source = make_source()
    with pytest.raises(ExportError, match=r"README.md names"):
        export(replace(source, search=f"best of 3 with {source.train.path}"), "adapter", tmp_path / "out")
    assert not Path(tmp_path / "out").exists()
