"""The reward of a registered reward model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from sweeper.config.rewards import AdapterReward, RewardModelSource, RewardSources
from sweeper.errors import RewardError
from sweeper.training.base_model import load_base
from sweeper.training.micro_batch import MicroBatch, until_it_fits
from sweeper.training.reward_scores import scores
from sweeper.training.rewards import Call
from sweeper.training.weights import MODEL_WEIGHTS, Adapted

TEXTS_AT_ONCE = 64
"""Texts per forward pass to begin with; halved where memory runs out."""


def reward_model(reward: AdapterReward, sources: RewardSources | None, device: str) -> Call:
    """Return what scores answers with their prompts, without gradient."""
    assert sources is not None
    source = sources.model(reward)
    tokenizer, model = _loaded(source, device)
    at_once = MicroBatch(TEXTS_AT_ONCE)

    def call(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float]:
        rows = [_tokens(tokenizer, source, *pair) for pair in zip(prompts, completions, strict=True)]
        found: list[float] = until_it_fits(at_once, lambda: _in_parts(model, rows, at_once.rows), undo=lambda: None)
        return found

    return call


@cache
def _loaded(source: RewardModelSource, device: str) -> tuple[Tokenizer, Adapted]:
    """Load a reward model once per process; it stays beside the policy."""
    base = load_base(source.base, source.base_config, source.adapter, device, "score")
    model: Adapted
    if (source.folder / MODEL_WEIGHTS).is_file():
        model = base.whole(source.folder)  # the base goes out of memory with this call
    else:
        model = PeftModel.from_pretrained(base.model, source.folder, use_safetensors=True)
    return base.tokenizer, model.eval().requires_grad_(False)


def _in_parts(model: Adapted, rows: list[list[int]], size: int) -> list[float]:
    """Score rows in parts, the longest first: like lengths together waste little padding."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    found = {i: score for part in parts for i, score in zip(part, scores(model, [rows[i] for i in part]), strict=True)}
    return [found[index] for index in range(len(rows))]


def _tokens(tokenizer: Any, source: RewardModelSource, prompt: Any, answer: str) -> list[int]:
    """Return a prompt with its answer in tokens, as the reward model learned them; too long ones lose their start."""
    if isinstance(prompt, str):
        ids = tokenizer(prompt + answer + tokenizer.eos_token)["input_ids"]
    elif tokenizer.chat_template:
        turns = [*prompt, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    else:
        raise RewardError(
            f"reward model {source.name} v{source.version} has no chat template, and the prompts are chats"
        )
    return list(ids)[-source.max_length :]
