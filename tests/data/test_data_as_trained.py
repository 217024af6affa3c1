"""Rows as training sees them: token by token and mask by mask what TRL's own trainers prepare."""

from __future__ import annotations

import json

import pytest
import tiny

from sweeper.config.adapter import LoRA
from sweeper.config.model import ModelConfig
from sweeper.config.rewards import ExactMatchReward
from sweeper.config.technique import CPO, DPO, GRPO, KTO, ORPO, SFT, RewardModel
from sweeper.data.as_trained import as_trained
from sweeper.data.splits import read_prepared
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError

IGNORED = -100
GENERATION = tiny.CHAT_TEMPLATE.replace(
    "{{ message['content'] }}<|im_end|>\n",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n",
)


@pytest.fixture(scope="module")
def base(tiny_model):
    from sweeper.training.base_model import load_base

    return load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu")


@pytest.fixture
def seen(tiny_model):
    """Return the rows of a trial's training file as sweeper shows them."""

    def rows(spec, folder=tiny_model):
        tokenizer = ModelTokenizer.load(folder)
        return [as_trained(row, tokenizer, spec.technique) for row in read_prepared(spec.train)]

    return rows


def ids(passage, kept=True):
    return [token.id for token in passage.tokens[: passage.kept if kept else None]]


def labels(passage):
    return [token.id if token.loss else IGNORED for token in passage.tokens[: passage.kept]]


def trl_rows(spec, base):
    from sweeper.training.adapters import peft_config
    from sweeper.training.techniques.sft import sft_rows

    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), 0) as model:
        return list(sft_rows(spec, base, model)[0])


SFTS = {
    "completion": SFT(max_length=64),
    "cut": SFT(max_length=16),
    "very short": SFT(max_length=8),
    "everything": SFT(max_length=64, completion_only=False),
}


@pytest.mark.parametrize("shape", ["prompt_completion", "prompt_completion_chat", "messages", "text"])
@pytest.mark.parametrize("kind", SFTS)
def test_fine_tuning_rows_are_those_of_trl(base, tiny_model, tmp_path, seen, shape, kind):
    spec = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=SFTS[kind])
    found = seen(spec)
    left = [row.passages[0] for row in found if row.dropped is None]
    try:
        expected = trl_rows(spec, base)
    except DataError:
        expected = []
    assert [(ids(each), labels(each)) for each in left] == [(row["input_ids"], row["labels"]) for row in expected]
    assert any(row.cut for row in found) == (found[0].passages[0].kept < len(found[0].passages[0].tokens))


@pytest.mark.parametrize("shape", ["prompt_completion", "messages"])
def test_cut_rows_say_what_they_lose(tiny_model, tmp_path, seen, monkeypatch, shape):
    monkeypatch.setattr(tiny, "WORDS", tuple(f"the digit {word} " for word in tiny.WORDS))
    whole = seen(tiny.trial_spec(tiny_model, tmp_path, shape=shape))[0].passages[0]
    assert not whole.lost_loss_tokens
    most = len(whole.tokens) - 2
    row = seen(tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=SFT(max_length=most)))[0]
    assert row.cut and row.dropped is None
    assert (row.passages[0].kept, row.passages[0].lost_loss_tokens) == (most, 2)
    assert whole.loss_tokens == row.passages[0].loss_tokens


def test_the_assistants_turns_are_those_that_a_template_marks_for_trl(base, tiny_model, tmp_path, seen):
    """TRL learns what the template marks; here that is the turn without the line break after it."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    folder = tmp_path / "marked"
    base.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(GENERATION)
    spec = tiny.trial_spec(tiny_model, tmp_path, shape="messages", technique=SFT(max_length=64))
    turns = [turn for number in (7, 8) for turn in tiny.row("messages", number)["messages"]]
    rows = [{"messages": turns}, *read_prepared(spec.train)]
    tiny.write_rows(spec.train, rows)
    from transformers import AutoTokenizer

    arguments = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        activation_checkpointing=False,
        assistant_only_loss=True,
    )
    trainer = SFTTrainer(
        model=base.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    for row, expected in zip(seen(spec, folder), trainer.train_dataset, strict=True):
        (passage,) = row.passages
        assert ids(passage) == expected["input_ids"]
        learned = [place for place, label in enumerate(expected["labels"]) if label != IGNORED]
        ours = [place for place, token in enumerate(passage.tokens) if token.loss and token.text != "\n"]
        assert ours == learned


def ranked_rows(spec, base):
    """The rows that a trainer of TRL's holds before it batches them."""
    from sweeper.training.adapters import peft_config
    from sweeper.training.micro_batch import MicroBatch
    from sweeper.training.reporting import BestEvaluation, ReportingCallback
    from sweeper.training.techniques.preferences import build_preference

    with base.adapted(peft_config(spec.adapter, spec.hyperparameters, head=spec.technique.head), 0) as model:
        callback = ReportingCallback(tiny.Curve(), BestEvaluation("eval_loss", maximize=False), 1, None)
        return list(build_preference(spec, base, model, MicroBatch(8), callback).train_dataset)


PAIRS = {"dpo": DPO, "orpo": ORPO, "cpo": CPO}


@pytest.mark.parametrize("shape", ["preference", "preference_chat"])
@pytest.mark.parametrize("most", [64, 14])
@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_are_those_of_trl(base, tiny_model, tmp_path, seen, shape, most, kind):
    spec = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=PAIRS[kind](max_length=most))
    found = [row.passages for row in seen(spec) if row.dropped is None]
    try:
        expected = ranked_rows(spec, base)
    except DataError:
        expected = []
    assert len(found) == len(expected)
    for passages, row in zip(found, expected, strict=True):
        for name, passage in zip(("chosen", "rejected"), passages, strict=True):
            assert passage.name == name
            if kind == "dpo":
                assert ids(passage, kept=False) == row["prompt_ids"] + row[f"{name}_ids"]
                assert passage.prompt == len(row["prompt_ids"])
            else:
                assert (ids(passage), labels(passage)) == (row[f"{name}_input_ids"], row[f"{name}_labels"])
            assert [token.loss for token in passage.tokens] == [
                place >= passage.prompt for place in range(len(passage.tokens))
            ]


def test_labelled_answers_are_those_of_trl(base, tiny_model, tmp_path, seen):
    spec = tiny.trial_spec(tiny_model, tmp_path, shape="unpaired", technique=KTO(max_length=64))
    expected = ranked_rows(spec, base)
    for row, trl in zip(seen(spec), expected, strict=True):
        (passage,) = row.passages
        assert ids(passage) == trl["prompt_ids"] + trl["completion_ids"] and passage.prompt == len(trl["prompt_ids"])


@pytest.mark.parametrize("shape", ["preference", "preference_chat"])
def test_a_reward_model_sees_both_answers_whole_or_not_at_all(tiny_model, tmp_path, seen, monkeypatch, shape):
    monkeypatch.setattr(tiny, "WORDS", tuple(f"the digit {word} " for word in tiny.WORDS))
    from sweeper.training.base_model import load_base

    base = load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu", "score")
    spec = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=RewardModel(max_length=128))
    for row, trl in zip(seen(spec), ranked_rows(spec, base), strict=True):
        assert [ids(passage) for passage in row.passages] == [trl["chosen_ids"], trl["rejected_ids"]]
        assert [token.loss for token in row.passages[0].tokens][-2:] == [False, True]
    short = tiny.trial_spec(tiny_model, tmp_path, shape=shape, technique=RewardModel(max_length=16))
    assert {row.dropped for row in seen(short)} == {"an answer is longer than max_length"}


def test_a_policy_sees_prompts_and_learns_none_of_their_tokens(base, tiny_model, tmp_path, seen):
    from sweeper.training.techniques.policy import _length

    technique = GRPO(max_length=64, rewards=(ExactMatchReward(),))
    spec = tiny.trial_spec(tiny_model, tmp_path, shape="prompt", technique=technique)
    for row, read in zip(seen(spec), read_prepared(spec.train), strict=True):
        (passage,) = row.passages
        assert len(passage.tokens) == _length(base.tokenizer, read["prompt"]) and passage.loss_tokens == 0


def test_pieces_join_to_the_text_whatever_a_character_takes(tiny_model):
    tokenizer = ModelTokenizer.load(tiny_model)
    row = {"prompt": "write žluťoučký 👍🏽 \n\t", "completion": "<script>alert(1)</script>"}
    (passage,) = as_trained(row, tokenizer, SFT()).passages
    assert "".join(token.text for token in passage.tokens) == row["prompt"] + row["completion"] + "<|im_end|>"


def test_chats_without_a_template_are_refused(tiny_model, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="no chat template"):
        as_trained(tiny.row("messages", 7), ModelTokenizer.load(tmp_path), SFT())
