"""Every chat template that TRL ships: a model that has learned its answers is scored as right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import variants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sweeper.config.evaluation import EvaluationConfig
from sweeper.data.rendering import answer_text, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.evaluation.scorer import score

_SPEC = importlib.util.find_spec("trl")
assert _SPEC is not None and _SPEC.origin is not None
TEMPLATES = {
    path.stem: path.read_text() for path in sorted((Path(_SPEC.origin).parent / "chat_templates").glob("*.jinja"))
}
MARKS = re.compile(
    r"<[|｜][^<>\n'\"{}]{1,40}[|｜]>|<[|]?[a-z_]*(?:turn|utterance|channel|bos|eos)[|]?>|</?s>|</?think>|\[/?[A-Z_]{3,}\]"
)
DIGITS = ("one", "two", "three", "four")
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"write {first} {second}"},
            {"role": "assistant", "content": f"{first} it is"},
            {"role": "user", "content": f"only {second} now"},
            {"role": "assistant", "content": second},
        ]
    }
    for first in DIGITS
    for second in DIGITS
]


def tokenizer_of(template: str):
    """Return a tokenizer of transformers' with a chat template, whose marks are special tokens."""
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [turn["content"] for row in ROWS for turn in row["messages"]] + [template]
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    marks = sorted({*MARKS.findall(template)} - {"<think>", "</think>"})
    found = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<bos>", eos_token="<|endoftext|>", pad_token="<pad>"
    )
    found.add_special_tokens({"additional_special_tokens": marks})
    found.add_tokens(["<think>", "</think>"])
    found.chat_template = template
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_is_found_and_nothing_else(name):
    tokenizer = ModelTokenizer.of(tokenizer_of(TEMPLATES[name]))
    for row, rendered in zip(ROWS, render(ROWS, tokenizer), strict=True):
        texts = [tokenizer.decode(rendered.ids[answer.start : answer.end]) for answer in rendered.answers]
        said = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
        assert [any(content in text for content in said) for text in texts] == [True, True]
        assert not any(asked in text for text in texts for asked in ("write ", "only "))
        assert answer_text(rendered.answer, tokenizer) == said[-1]
        ends = {tokenizer.end_of_turn} if tokenizer.end_of_turn is not None else {tokenizer.token_id("eos_token")}
        assert ends & set(rendered.answer)


def learned(template: str):
    """Return a tiny model that has learned the rows by heart, with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rendered = render(ROWS, ModelTokenizer.of(tokenizer))
    longest = max(len(row.ids) for row in rendered)
    ids = torch.zeros(len(rendered), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for number, row in enumerate(rendered):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        for answer in row.answers:
            labels[number, answer.start : answer.end] = ids[number, answer.start : answer.end]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.005:
            break
    return model, tokenizer


@pytest.mark.parametrize("name", variants.mostly_long(TEMPLATES, "qwen3", "gptoss", "llama3_2"))
def test_learned_answers_are_right(name):
    model, tokenizer = learned(TEMPLATES[name])
    scores = score(model, tokenizer, ROWS, EvaluationConfig(metrics=("exact_match", "token_f1")))
    assert scores.metrics["exact_match"].value == 1.0, (scores.predictions[:3], scores.references[:3])
    assert scores.cut == 0
