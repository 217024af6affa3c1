"""Scoring of prepared rows, with and without an adapter, against values worked out another way."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch

from sweeper.config.evaluation import EvaluationConfig
from sweeper.errors import DataError
from sweeper.evaluation.examples import read_examples
from sweeper.evaluation.generation import generate
from sweeper.evaluation.losses import answer_losses, token_row
from sweeper.evaluation.scorer import score

TEXT_ROWS = [
    {"prompt": "the cat", "completion": " sat on the mat"},
    {"prompt": "write three hundred and twelve as digits", "completion": " 312"},
    {"prompt": "hello , how", "completion": " are you ?"},
]
MESSAGES = [
    {"role": "system", "content": "the cat"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "how are you ?"},
]


def evaluation(*metrics, **rest):
    return EvaluationConfig(metrics=metrics, **{"max_new_tokens": 6, **rest})


def test_scores_are_those_of_the_generated_texts(tiny):
    answers = [a.strip() for a in generate(tiny.model, tiny.tokenizer, [r["prompt"] for r in TEXT_ROWS], 6)]
    rows = [*TEXT_ROWS, {"prompt": "the cat", "completion": f"  {answers[0]}\n"}]
    scores = score(tiny.model, tiny.tokenizer, rows, evaluation("exact_match", "chrf"))
    assert scores.predictions == (*answers, answers[0])
    assert scores.references == ("sat on the mat", "312", "are you ?", answers[0])
    assert scores.prompts[1] == "write three hundred and twelve as digits"
    exact = scores.metrics["exact_match"]
    assert list(scores.metrics) == ["exact_match", "chrf"]
    assert exact.examples == (0.0, 0.0, 0.0, 1.0) and exact.value == 0.25
    assert exact.interval.low == 0 and 0.5 <= exact.interval.high <= 1
    assert len(scores.metrics["chrf"].statistics) == 4


def test_scores_are_plain_data(tiny):
    scores = score(tiny.model, tiny.tokenizer, TEXT_ROWS, evaluation("bleu", "perplexity"))
    again = json.loads(json.dumps(asdict(scores), allow_nan=False))
    assert again["metrics"]["bleu"]["interval"]["level"] == 0.95
    assert again["predictions"] == list(scores.predictions)


def test_perplexity_is_that_of_the_models_own_loss(tiny):
    """Transformers' loss on one row at a time, weighted by tokens, is the reference."""
    losses, tokens = [], []
    for row in TEXT_ROWS:
        prompt = tiny.tokenizer(row["prompt"])["input_ids"]
        ids = torch.tensor([tiny.tokenizer(row["prompt"] + row["completion"] + "</s>")["input_ids"]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            losses.append(float(tiny.model.eval()(ids, labels=labels).loss))
        tokens.append(ids.shape[1] - len(prompt))
    expected = sum(loss * n for loss, n in zip(losses, tokens, strict=True)) / sum(tokens)
    scores = score(tiny.model, tiny.tokenizer, TEXT_ROWS, evaluation("perplexity", "eval_loss"))
    assert scores.predictions == ()
    assert scores.metrics["eval_loss"].value == pytest.approx(expected, rel=1e-5)
    assert scores.metrics["perplexity"].value == pytest.approx(math.exp(expected), rel=1e-5)
    assert scores.metrics["eval_loss"].examples == pytest.approx(losses, rel=1e-5)


def test_losses_do_not_depend_on_the_batch(tiny):
    examples = read_examples([*TEXT_ROWS, {"messages": MESSAGES}, {"text": "the cat sat on the mat"}], tiny.tokenizer)
    one, many = (answer_losses(tiny.model, examples, batch_size=n) for n in (1, 5))
    assert one == pytest.approx(many, rel=1e-5)


def test_rows_become_the_tokens_that_trl_trains_on(tiny, tmp_path):
    """TRL's own trainer prepares the same rows; ids and masks must be the same."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    conversation = {"prompt": MESSAGES[:2], "completion": MESSAGES[2:]}
    for rows in (TEXT_ROWS, [conversation]):
        arguments = SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], activation_checkpointing=False
        )
        trainer = SFTTrainer(
            model=tiny.model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tiny.tokenizer
        )
        for example, prepared in zip(read_examples(rows, tiny.tokenizer), trainer.train_dataset, strict=True):
            row = token_row(example, None)
            labels = [token if place in row.places else -100 for place, token in enumerate(row.ids)]
            assert list(row.ids) == prepared["input_ids"]
            assert labels == prepared["labels"]


def test_the_last_assistant_turn_is_the_reference_in_all_chat_shapes(tiny):
    shapes = [
        {"messages": MESSAGES},
        {"prompt": MESSAGES[:2], "completion": MESSAGES[2:]},
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
    ]
    scores = score(tiny.model, tiny.tokenizer, shapes, evaluation("exact_match", "eval_loss"))
    assert set(scores.references) == {"how are you ?"}
    assert set(scores.prompts) == {"system: the cat\nuser: hello"}
    assert len(set(scores.predictions)) == 1
    assert len(set(scores.metrics["eval_loss"].statistics)) == 1


def test_plain_text_has_perplexity_and_nothing_else(tiny):
    rows = [{"text": "the cat sat on the mat"}, {"text": "hello , how are you ?"}]
    scores = score(tiny.model, tiny.tokenizer, rows, evaluation("perplexity"))
    tokens = [len(tiny.tokenizer(r["text"] + "</s>")["input_ids"]) - 1 for r in rows]
    assert [count for _, count in scores.metrics["perplexity"].statistics] == tokens
    with pytest.raises(DataError, match=r"row 1 is plain text without a prompt.* token_f1; set evaluation\.metrics"):
        score(tiny.model, tiny.tokenizer, rows, evaluation("perplexity", "token_f1"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the test split is empty"),
        ([TEXT_ROWS[0], {"question": "x", "answer": "y"}], "row 2: .* found answer, question"),
        ([{"prompt": "x", "completion": 3}], "row 1: completion must be text; found int"),
        ([{"messages": MESSAGES[:2]}], "row 1: the last turn must be the assistant's.* found role 'user'"),
        ([{"messages": MESSAGES[2:]}], "row 1: .* at least two turns"),
        ([{"prompt": MESSAGES, "completion": "x"}], "row 1: .*both text or both messages"),
    ],
)
def test_rows_that_cannot_be_scored_are_named(tiny, rows, message):
    with pytest.raises(DataError, match=message):
        score(tiny.model, tiny.tokenizer, rows, evaluation("exact_match"))


def test_progress_counts_answers_and_losses(tiny):
    seen = []
    config = evaluation("exact_match", "perplexity")
    score(tiny.model, tiny.tokenizer, TEXT_ROWS, config, lambda *done: seen.append(done))
    assert seen == [(3, 6), (6, 6)]


def test_rows_longer_than_the_context_keep_their_answer(tiny):
    (example,) = read_examples([{"prompt": "the cat " * 200, "completion": " 312"}], tiny.tokenizer)
    row = token_row(example, 128)
    assert len(row.ids) == 128
    assert tiny.tokenizer.decode(row.targets) == " 312</s>"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT calls it
def test_an_adapter_on_a_4_bit_base_counts_and_the_base_is_as_before(tiny, tmp_path):
    """The adapter changes the scores, switching it off gives the base's, and gradients still pass afterwards."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny.model.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization, dtype=torch.float32)
    config = evaluation("eval_loss", "chrf")
    alone = score(base, tiny.tokenizer, TEXT_ROWS, config)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(base, lora)
    adapted = score(model, tiny.tokenizer, TEXT_ROWS, config)
    with model.disable_adapter():
        disabled = score(model, tiny.tokenizer, TEXT_ROWS, config)
    assert disabled == alone
    assert adapted.metrics["eval_loss"].value != pytest.approx(alone.metrics["eval_loss"].value, rel=1e-3)
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert layers and not any(getattr(m.weight.quant_state, "packing_format_for_cpu", False) for m in layers)
    embedded = model.get_input_embeddings()(torch.tensor([[5, 6, 7]])).detach().requires_grad_()
    layers[0].train()(embedded).sum().backward()
    assert embedded.grad.abs().sum() > 0
