"""Generation on a tiny float32 Llama: the same texts in any batch, and the model left as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from sweeper.errors import DataError, OutOfMemoryError
from sweeper.evaluation.batching import run_in_batches
from sweeper.evaluation.generation import generate, prompt_ids

PROMPTS = ["the cat", "write three hundred and twelve as digits", "a", "hello , how are you ? the cat sat", "is 312"]


def greedy_by_hand(tiny, prompt, max_new_tokens):
    """One row, no cache, no padding: the plainest loop there is."""
    ids = list(tiny.tokenizer(prompt)["input_ids"])
    start = len(ids)
    while len(ids) - start < max_new_tokens:
        with torch.no_grad():
            ids.append(int(tiny.model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tiny.tokenizer.eos_token_id:
            break
    return tiny.tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_texts_are_those_of_a_plain_loop_whatever_the_batch_size(tiny, batch_size):
    expected = [greedy_by_hand(tiny, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 2
    assert generate(tiny.model, tiny.tokenizer, PROMPTS, 12, batch_size) == expected


def test_generation_stops_at_the_end_of_sequence_token(tiny):
    """The last token of a long answer becomes the end of sequence: the answer then ends before it."""
    long = generate(tiny.model, tiny.tokenizer, ["the cat"], 12)[0]
    ids = list(tiny.tokenizer(PROMPTS[0])["input_ids"])
    with torch.no_grad():
        first = int(tiny.model.eval()(torch.tensor([ids])).logits[0, -1].argmax())
    found = tiny.model.generation_config
    tiny.model.generation_config = GenerationConfig(eos_token_id=[first])
    try:
        assert generate(tiny.model, tiny.tokenizer, ["the cat"], 12) != [long]
        assert len(tiny.tokenizer(generate(tiny.model, tiny.tokenizer, ["the cat"], 12)[0])["input_ids"]) <= 1
    finally:
        tiny.model.generation_config = found


def test_conversations_go_through_the_chat_template(tiny):
    turns = [{"role": "system", "content": "the cat"}, {"role": "user", "content": "hello"}]
    ids = prompt_ids(tiny.tokenizer, turns)
    assert tiny.tokenizer.decode(ids) == "<|system|>the cat</s><|user|>hello</s><|assistant|>"
    text = tiny.tokenizer.decode(ids)
    assert (
        generate(tiny.model, tiny.tokenizer, [turns, text], 6)[0] == generate(tiny.model, tiny.tokenizer, [text], 6)[0]
    )


def test_a_conversation_without_chat_template_is_a_data_error(tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with pytest.raises(DataError, match="no chat template"):
        generate(tiny.model, tiny.tokenizer, [[{"role": "user", "content": "hello"}]], 4)


def test_an_empty_prompt_is_named(tiny):
    with pytest.raises(DataError, match="prompt 2 is empty"):
        generate(tiny.model, tiny.tokenizer, ["the", ""], 4)


def test_penalties_and_sampling_of_the_model_do_not_count(tiny):
    plain = generate(tiny.model, tiny.tokenizer, PROMPTS, 12)
    found = tiny.model.generation_config
    tiny.model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, no_repeat_ngram_size=1, eos_token_id=1, num_beams=2
    )
    try:
        assert generate(tiny.model, tiny.tokenizer, PROMPTS, 12) == plain
    finally:
        tiny.model.generation_config = found


@pytest.mark.parametrize("fails", [False, True])
def test_model_and_tokenizer_are_left_as_found(tiny, monkeypatch, fails):
    model, tokenizer = tiny.model, tiny.tokenizer
    model.train()
    model.model.layers[0].eval()
    monkeypatch.setattr(tokenizer, "padding_side", "right")
    config = model.generation_config
    before = config.to_dict()
    if fails:
        monkeypatch.setattr(model, "generate", lambda **_: torch.zeros(2, 2) @ torch.zeros(3, 3))
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            generate(model, tokenizer, PROMPTS, 4)
    else:
        generate(model, tokenizer, PROMPTS, 4)
    assert model.training and model.model.layers[1].training and not model.model.layers[0].training
    assert model.generation_config is config and config.to_dict() == before
    assert tokenizer.padding_side == "right"
    assert not model.lm_head._forward_pre_hooks
    model.eval()


def test_a_prompt_beyond_the_context_keeps_its_end(tiny, caplog):
    long = "the cat sat on the mat " * 60
    ids = list(tiny.tokenizer(long)["input_ids"])
    assert len(ids) > 128
    expected = generate(tiny.model, tiny.tokenizer, [tiny.tokenizer.decode(ids[-(128 - 8) :])], 8)
    assert generate(tiny.model, tiny.tokenizer, [long], 8) == expected
    assert "is cut to its last 120" in caplog.text


def test_progress_ends_at_the_total(tiny):
    seen = []
    generate(tiny.model, tiny.tokenizer, PROMPTS, 2, batch_size=2, on_progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    ],
)
def test_batches_are_halved_where_memory_runs_out(error):
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return [item * 10 for item in batch]

    items = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert run_in_batches(items, int, 8, run) == [item * 10 for item in items]
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_a_single_row_that_does_not_fit_is_told():
    def run(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemoryError, match="single row of 7 tokens does not fit"):
        run_in_batches([7, 3], int, 2, run)


def test_a_real_allocation_failure_of_the_cpu_counts_as_out_of_memory():
    def run(batch):
        if len(batch) > 1:
            torch.empty(2**55)
        return batch

    assert run_in_batches([1, 2], int, 2, run) == [1, 2]
