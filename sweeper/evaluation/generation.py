"""Greedy generation in batches: the same texts whatever the batch size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from sweeper.data.rendering import render_prompt
from sweeper.data.tokenizer import Message, ModelTokenizer
from sweeper.errors import DataError
from sweeper.evaluation.batching import OnProgress, run_in_batches
from sweeper.training.micro_batch import answers_at_once

logger = logging.getLogger(__name__)

Prompt = str | Sequence[Message] | Sequence[int]
"""Text to continue, the turns before the answer, or either in tokens."""


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt.

    Attributes:
        prompt: The prompt's tokens, as the model saw them.
        tokens: The answer's tokens, the one that ends it included.
        text: The answer without special tokens.
        ended: Whether the model ended it; one that it did not was cut.
    """

    prompt: list[int]
    tokens: list[int]
    text: str
    ended: bool


_CPU_PACKING = "support_avx512bf16_for_cpu"


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Return the text of the model's greedy answer to each prompt; see ``answers``."""
    return [answer.text for answer in answers(model, tokenizer, prompts, max_new_tokens, batch_size, on_progress)]


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[Answer]:
    """Return the model's greedy answer to each prompt, in the order of the prompts.

    Text is continued after the tokenizer's own special tokens; conversations go through the chat template with the
    generation prompt. An answer ends at the chat template's end of turn, at an end-of-sequence token (the tokenizer's,
    or one of the model's generation config) or after ``max_new_tokens``; special tokens are left out of it. Sampling
    and penalties of the model's generation config do not apply. Prompts longer than the model's context lose their
    beginning.

    Batches are padded on the left by hand, so the tokenizer stays as it is; the model's mode and generation config are
    restored, also after an error.

    Args:
        model: A causal language model of transformers, or one wrapped by PEFT.
        tokenizer: Its tokenizer.
        prompts: Texts or conversations.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Prompts per batch; None for what suits the device. Halved when memory runs out.
        on_progress: Called after every batch.

    Raises:
        DataError: If a prompt is a conversation and the tokenizer has no chat template, or a prompt has no token.
        OutOfMemoryError: If a single prompt does not fit in memory.
    """
    room = prompt_room(model, max_new_tokens)
    items = [_last(prompt_ids(tokenizer, prompt), room) for prompt in prompts]
    for number, ids in enumerate(items, start=1):
        if not ids:
            raise DataError(f"prompt {number} is empty, so there is nothing to generate from")
    settings = generation_config(model, tokenizer, max_new_tokens)

    def answer(batch: list[list[int]]) -> list[Answer]:
        parts = _of_equal_length(batch) if _has_virtual_tokens(model) else [batch]
        return [found for part in parts for found in _answer(model, tokenizer, part, settings)]

    with as_found(model), contiguous_head(model), torch.no_grad():
        size = batch_size or default_batch_size(model)
        return run_in_batches(items, len, size, answer, on_progress)


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return a prompt's tokens, up to the start of the answer; DataError as ``render_prompt``."""
    if prompt and isinstance(prompt[0], int):
        return list(cast(Sequence[int], prompt))
    return render_prompt(cast(str | Sequence[Message], prompt), ModelTokenizer.of(tokenizer))


def context_length(model: Any) -> int | None:
    """Return the most tokens the model takes, or None if its config does not say."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None)


def default_batch_size(model: Any) -> int:
    """Return the initial batch size for the model's device."""
    return answers_at_once(input_device(model).type)


def input_device(model: Any) -> torch.device:
    """Return the device that takes the model's input."""
    device: torch.device = model.get_input_embeddings().weight.device
    return device


@contextmanager
def as_found(model: Any) -> Iterator[None]:
    """Put the model in evaluation mode, and restore every module's mode and generation config at the end.

    In evaluation mode bitsandbytes' 4-bit layers would also repack their weights for the CPU, for good, without a
    backward pass and with rounded scales; the switch for that is off meanwhile.
    """
    packing = [(module, vars(module)[_CPU_PACKING]) for module in model.modules() if _CPU_PACKING in vars(module)]
    modes = [(module, module.training) for module in model.modules()]
    configs = [(module, module.generation_config) for module in model.modules() if "generation_config" in vars(module)]
    try:
        model.eval()
        for module, _ in configs:
            # generate() fills what its own argument leaves open from here: penalties would be applied silently
            module.generation_config = GenerationConfig()
        for module, _ in packing:
            setattr(module, _CPU_PACKING, False)
        yield
    finally:
        for module, found in packing:
            setattr(module, _CPU_PACKING, found)
        for module, training in modes:
            module.training = training
        for module, config in configs:
            module.generation_config = config


@contextmanager
def contiguous_head(model: Any) -> Iterator[None]:
    """Make the hidden states that enter the language-model head contiguous.

    Of the prompt only the last position goes through the head, a slice that is not contiguous: in bfloat16 on the CPU
    PyTorch then copies the vocabulary matrix for every row of the batch, which takes gigabytes and minutes.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def generation_config(
    model: Any, tokenizer: Any, max_new_tokens: int, *, temperature: float = 0.0, top_p: float = 1.0
) -> GenerationConfig:
    """Return a configuration for greedy decoding, or for sampling if there is a temperature."""
    found = getattr(model, "generation_config", None)
    own = (getattr(found, "eos_token_id", None), tokenizer.eos_token_id, ModelTokenizer.of(tokenizer).end_of_turn)
    ends = {end for each in own for end in _as_list(each)}
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    return GenerationConfig(
        do_sample=temperature > 0,
        **sampling,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        pad_token_id=_pad_id(tokenizer, ends),
        bos_token_id=tokenizer.bos_token_id,
    )


def _pad_id(tokenizer: Any, ends: set[int]) -> int:
    """Return a token for masked positions; any will do, as nothing attends to it."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return min(ends, default=0)


def _as_list(ids: Any) -> list[int]:
    if ids is None:
        return []
    return [int(ids)] if isinstance(ids, int) else [int(i) for i in ids]


def prompt_room(model: Any, max_new_tokens: int) -> int | None:
    """Return the most prompt tokens that leave room for the answer; never less than half the context."""
    context = context_length(model)
    return None if context is None else max(context - max_new_tokens, context // 2)


def _last(ids: list[int], room: int | None) -> list[int]:
    if room is None or len(ids) <= room:
        return ids
    logger.warning("a prompt of %d tokens is cut to its last %d, to fit the model's context", len(ids), room)
    return ids[-room:]


def _has_virtual_tokens(model: Any) -> bool:
    """Return whether PEFT puts virtual tokens before every row."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.is_prompt_learning


def _of_equal_length(batch: list[list[int]]) -> list[list[list[int]]]:
    """Return a batch in parts without padding, which would separate the text from the virtual tokens.

    Training pads on the other side, so there the two are always adjacent.
    """
    return [list(part) for _, part in groupby(batch, key=len)]


def _answer(model: Any, tokenizer: Any, batch: list[list[int]], settings: GenerationConfig) -> list[Answer]:
    device = input_device(model)
    rows = [torch.tensor(ids) for ids in batch]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=settings.pad_token_id, padding_side="left")
    ones = [torch.ones_like(row) for row in rows]
    attention_mask = pad_sequence(ones, batch_first=True, padding_value=0, padding_side="left")
    output = model.generate(
        input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), generation_config=settings
    )
    ends = set(_as_list(settings.eos_token_id))
    found = [_up_to_end(ids, ends) for ids in output[:, input_ids.shape[1] :].tolist()]
    texts: list[str] = tokenizer.batch_decode(found, skip_special_tokens=True)
    return [
        Answer(prompt, ids, text, ended=bool(ids) and ids[-1] in ends)
        for prompt, ids, text in zip(batch, found, texts, strict=True)
    ]


def _up_to_end(ids: list[int], ends: set[int]) -> list[int]:
    """Drop the padding after the token that ends an answer."""
    return ids[: next((place for place, token in enumerate(ids, start=1) if token in ends), len(ids))]
