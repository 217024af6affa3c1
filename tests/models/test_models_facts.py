"""What the files of a model say about it, and what it costs in memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.errors import ModelError
from sweeper.models.facts import fingerprint, read_facts
from sweeper.models.memory import Workload, base_bytes, estimate, largest_micro_batch

PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_facts_agree_with_the_model_as_loaded(tiny):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    facts = read_facts(tiny)
    linear = {n: (m.in_features, m.out_features) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    del linear["lm_head"]
    assert facts.linear == linear
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.architecture, facts.hidden_size, facts.layers, facts.vocab_size) == ("LlamaForCausalLM", 32, 2, 13)
    assert (facts.heads, facts.kv_heads, facts.head_dim, facts.max_positions) == (4, 2, 8, 128)
    assert not facts.tied_embeddings


@PEFT_WARNS
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("layers.0.mlp.down_proj",)])
def test_lora_parameters_agree_with_peft(tiny, targets):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    modules = targets if isinstance(targets, str) else list(targets)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(r=4, target_modules=modules))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert read_facts(tiny).lora_parameters(4, targets) == trained


def test_the_largest_rank_is_the_smallest_side_of_a_targeted_layer(tiny):
    facts = read_facts(tiny)
    assert facts.largest_rank() == 16  # two key and value heads of 8
    assert facts.largest_rank(("gate_proj",)) == 32


def test_a_target_module_that_does_not_exist_names_the_nearest(tiny):
    with pytest.raises(ModelError, match=r"'q_prj' is not in LlamaForCausalLM; did you mean q_proj\?.*down_proj"):
        read_facts(tiny).targets(("q_proj", "q_prj"))
    with pytest.raises(ModelError, match="lm_head"):
        read_facts(tiny).targets(("lm_head",))


def test_tied_embeddings_are_seen(tiny_source, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(tiny_source, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    assert read_facts(tmp_path / "tied").tied_embeddings


def test_transposed_layers_of_gpt2_are_counted_too(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20)).save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    assert len(facts.linear) == 2 * 4
    assert (facts.layers, facts.hidden_size, facts.max_positions) == (2, 16, 1024)


def test_a_config_without_sizes_is_refused(tiny):
    (tiny / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="has no hidden_size"):
        read_facts(tiny)


def test_fingerprint_follows_content_not_place_nor_library_version(tiny, tmp_path, edit_json):
    first = fingerprint(tiny)
    copy = shutil.copytree(tiny, tmp_path / "copy")
    edit_json(copy / "config.json", transformers_version="6.0.0")
    assert fingerprint(copy) == first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(copy) != first
    edit_json(tiny / "config.json", rms_norm_eps=0.5)
    assert fingerprint(tiny) != first


def test_fingerprints_are_remembered_until_the_file_changes(tiny, tmp_path):
    first = fingerprint(tiny)
    store = tmp_path / "cache" / "fingerprints.json"
    remembered = json.loads(store.read_text())
    (entry,) = remembered.values()
    entry["sha256"] = "f" * 64
    store.write_text(json.dumps(remembered))
    assert fingerprint(tiny) != first  # taken from memory, the file not read again
    os.utime(tiny / "model.safetensors", ns=(1, 1))
    assert fingerprint(tiny) == first
    store.write_text("not json")
    assert fingerprint(tiny) == first


def work(**changes):
    return Workload(
        **{"adapter": QLoRA(), "lora_rank": 8, "target_modules": "all-linear", "tokens_per_row": 64, **changes}
    )


def test_memory_grows_with_what_it_should(tiny):
    facts = read_facts(tiny)
    one, two = estimate(facts, work(), 1), estimate(facts, work(), 2)
    assert two.activations == pytest.approx(2 * one.activations, rel=1e-3)
    assert two.base == one.base
    assert one.adapter * 4 == one.adapter + one.gradients + one.optimizer
    assert one.total == one.base + one.beyond_base
    assert estimate(facts, work(gradient_checkpointing=True), 1).activations < one.activations
    assert estimate(facts, work(dtype="float32"), 1).activations > one.activations
    assert estimate(facts, work(attention_matrix=True), 1).activations > one.activations
    assert estimate(facts, work(lora_rank=16), 1).adapter == 2 * one.adapter


def test_the_largest_micro_batch_divides_the_batch_and_fits(tiny):
    facts = read_facts(tiny)
    need = [estimate(facts, work(), n).beyond_base for n in range(25)]
    for free, expected in ((need[1] - 1, 0), (need[1], 1), (need[7], 6), (need[24], 24), (need[24] * 10, 24)):
        assert largest_micro_batch(facts, work(), batch_size=24, free_bytes=free, loaded=True) == expected
    base = estimate(facts, work(), 1).base
    assert largest_micro_batch(facts, work(), batch_size=24, free_bytes=need[7] + base, loaded=False) == 6


def test_facts_memory_and_resolving_need_no_torch(tiny):
    script = (
        "import sys; from pathlib import Path; from sweeper.config.model import ModelConfig;"
        "from sweeper.models.resolve import resolve; from sweeper.models import facts, memory;"
        f"facts.read_facts(resolve(ModelConfig(name='tiny'), Path({str(tiny.parent)!r}), fetch=False).path);"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.pretrained
def test_the_base_estimate_agrees_with_smollm2_in_nf4(smollm2):
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    facts = read_facts(smollm2)
    dense = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    assert base_bytes(facts, LoRA(), "bfloat16") == pytest.approx(dense.get_memory_footprint(), rel=0.01)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16, quantization_config=quantization)
    states = [m.weight.quant_state for m in model.modules() if hasattr(getattr(m, "weight", None), "quant_state")]
    constants = sum(s.absmax.nbytes + s.state2.absmax.nbytes for s in states)
    assert len(states) == len(facts.linear) == 210
    assert base_bytes(facts, QLoRA(), "bfloat16") == pytest.approx(model.get_memory_footprint() + constants, rel=0.02)


def _bytes_kept_for_backward(model, rows, tokens, vocabulary):
    """Return the bytes that autograd keeps between forward and backward, weights left out."""
    import torch

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = torch.randint(0, vocabulary, (rows, tokens))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=inputs, labels=inputs, use_cache=False).loss
    loss.backward()
    return sum(kept.values())


@PEFT_WARNS
@pytest.mark.pretrained
@pytest.mark.parametrize("kind", [pytest.param(LoRA, marks=pytest.mark.long), QLoRA])
def test_activations_are_estimated_on_the_safe_side(smollm2, kind):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    options = {"quantization_config": quantization} if kind is QLoRA else {}
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16, **options)
    model = get_peft_model(model, LoraConfig(r=16, lora_dropout=0.1, target_modules="all-linear")).train()
    kept = _bytes_kept_for_backward(model, 2, 64, 49152)
    need = estimate(read_facts(smollm2), work(adapter=kind(), lora_rank=16), 2)
    assert kept < need.activations + need.logits < 2.5 * kept, (kept, need)


@pytest.mark.pretrained
def test_the_converted_model_knows_the_capital_of_france(smollm2):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    facts = read_facts(smollm2)
    assert (facts.parameters, facts.hidden_size, facts.layers) == (134515008, 576, 30)
    assert (facts.license or "").lower() == "apache-2.0"
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0])
