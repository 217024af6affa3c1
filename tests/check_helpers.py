"""What the tests of the check build on: a tiny model written without torch, rows, and a study of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = [*"abcdefghijklmnopqrstuvwxyz", "=>", ":", "."]
HIDDEN, MLP, LAYERS = 32, 64, 2


def write_model(folder: Path) -> Path:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"}))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_tensors(len(vocabulary)), folder / "model.safetensors")
    return folder


def _tensors(vocabulary: int) -> dict[str, np.ndarray]:
    shapes = {"model.embed_tokens": (vocabulary, HIDDEN), "lm_head": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{part}_proj": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{at}.mlp.{part}_proj": (MLP, HIDDEN) for part in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj"] = (HIDDEN, MLP)
    return {f"{name}.weight": np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    letters = "abcdefghij"
    return [
        {"prompt": " ".join(letters[int(digit)] for digit in f"{number:04d}") + " =>", "completion": f" {number}"}
        for number in range(start, start + count)
    ]


def write_rows(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def refused(result: Any, *words: str) -> str:
    """Assert what every refusal has in common, and the given words; return the message."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    return result.stderr


STUDY = """\
name: letters
model: ./tiny
data:
  train: train.jsonl
  validation: validation.jsonl
  test: test.jsonl
technique: {kind: sft, max_length: 16}
"""
