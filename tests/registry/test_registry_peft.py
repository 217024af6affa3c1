from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from test_registry import database, home, registry  # noqa: F401 - fixtures
from transformers import LlamaConfig, LlamaForCausalLM

from sweeper.registry import Registry

# PEFT asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2,
        )
    )  # fmt: skip


def test_what_peft_saved_is_registered_and_loads_from_there(registry: Registry, tmp_path: Path) -> None:  # noqa: F811
    torch.set_num_threads(1)
    tokens = torch.arange(8).unsqueeze(0)
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model(tokens).logits
        plain = tiny_llama()(tokens).logits
    found = registry.register("itn", tmp_path / "adapter", study="itn", trial=2)
    loaded = PeftModel.from_pretrained(tiny_llama(), registry.verify("itn", found.version).folder)
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, expected)
    assert not torch.allclose(plain, expected, atol=1e-3)
