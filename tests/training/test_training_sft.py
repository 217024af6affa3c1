"""What TRL is asked for: the same steps as its own trainer, the data shapes, schedules and further fields."""

from __future__ import annotations

import math

import pytest
import tiny
from plain_trl import trl_curve
from tiny import Curve

from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome
from sweeper.errors import DataError
from sweeper.training.adapters import peft_config
from sweeper.training.arguments import training_arguments
from sweeper.training.micro_batch import MicroBatch
from sweeper.training.reporting import BestEvaluation, ReportingCallback, evaluation_steps
from sweeper.training.techniques.sft import build_sft, sft_rows

SCHEDULES = [
    *(
        (schedule, warmup)
        for schedule in ("linear", "cosine")
        for warmup in ({"warmup_ratio": 0.3}, {"warmup_steps": 0})
    ),
    *((schedule, {"warmup_steps": 2}) for schedule in ("linear", "constant", "constant_with_warmup", "inverse_sqrt")),
]


def test_the_steps_are_those_of_trls_own_trainer(lora_base, train, spec):
    asked = {"warmup_ratio": 0.2, "lr_scheduler": "cosine", "rows": 32}
    _, curve = train(lora_base, micro_batch=3, **asked)
    plain = trl_curve(spec(**asked), parts=2)
    assert len(plain["loss"]) == 8
    assert curve.of("loss") == pytest.approx(plain["loss"], rel=1e-4)
    assert curve.of("grad_norm") == pytest.approx(plain["grad_norm"], rel=1e-3)
    assert curve.of("learning_rate") == pytest.approx(plain["learning_rate"], rel=1e-6)


def trained_text(base, spec):
    """The text of the first row that carries a loss, as tokenised for the trial."""
    with base.adapted(peft_config(spec.adapter, spec.hyperparameters), 0) as model:
        callback = ReportingCallback(Curve(), BestEvaluation("eval_loss", maximize=False), 1, None)
        trainer = build_sft(spec, base, model, MicroBatch(8), callback)
        row = trainer.train_dataset[0]
    return base.tokenizer.decode(
        [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    )


ONLY = {
    "prompt_completion": " 100<|im_end|>",
    "prompt_completion_chat": "100<|im_end|>\n",
    "messages": "100<|im_end|>\n",
    "text": "write one zero zero: 100<|im_end|>",
}
ALL = {
    "prompt_completion": "write one zero zero: 100<|im_end|>",
    "prompt_completion_chat": "<|im_start|>user\nwrite one zero zero<|im_end|>\n<|im_start|>assistant\n100<|im_end|>\n",
    "messages": "<|im_start|>user\nwrite one zero zero<|im_end|>\n<|im_start|>assistant\n100<|im_end|>\n",
    "text": "write one zero zero: 100<|im_end|>",
}


@pytest.mark.parametrize("shape", ONLY)
@pytest.mark.parametrize("completion_only", [True, False])
def test_the_loss_is_on_what_was_asked_for(lora_base, spec, shape, completion_only):
    asked = spec(shape=shape, technique=SFT(max_length=64, completion_only=completion_only))
    expected = (ONLY if completion_only else ALL)[shape]
    assert trained_text(lora_base, asked).strip() == expected.strip()


@pytest.mark.parametrize("shape", [*ONLY, "same_answer"])
def test_every_shape_trains(lora_base, train, shape):
    result, curve = train(lora_base, shape=shape, learning_rate=1e-2)
    assert result.outcome is Outcome.COMPLETE
    assert curve.of("eval_loss")[-1] < curve.of("eval_loss")[0]


@pytest.mark.parametrize(
    ("technique", "weight", "learned"),
    [
        ({}, 1, "1<|im_end|>\n2<|im_end|>"),
        ({"turns": "last"}, 1, "2<|im_end|>"),
        ({}, 0, "2<|im_end|>"),
        ({"assistant_only": True}, 1, "1<|im_end|>\n2<|im_end|>"),
        ({"assistant_only": False}, 1, "2<|im_end|>"),  # as a study stored it that learned the last turn only
    ],
)
def test_of_a_conversation_the_assistants_turns_are_learned(lora_base, spec, tmp_path, technique, weight, learned):
    turns = [("user", "write one"), ("assistant", "1"), ("user", "write two"), ("assistant", "2")]
    messages = [{"role": role, "content": content} for role, content in turns]
    messages[1]["weight"] = weight
    path = tiny.write_rows(tmp_path / "conversation.jsonl", [{"messages": messages}] * 4)
    asked = spec(shape="messages", technique=SFT(max_length=64, **technique)).model_copy(update={"train": path})
    assert trained_text(lora_base, asked).strip() == learned


def test_rows_with_nothing_left_to_learn_are_left_out(lora_base, train, spec, tmp_path):
    long = [{"prompt": "one " * 200, "completion": "1"}] * 20
    mixed = tiny.write_rows(tmp_path / "mixed.jsonl", [*long, *(tiny.row("prompt_completion", n) for n in range(8))])
    from sweeper.training.trial import train_trial

    result = train_trial(spec().model_copy(update={"train": mixed}), lora_base, Curve(), 8)
    assert (result.outcome, result.total_steps) == (Outcome.COMPLETE, 2)
    only_long = spec().model_copy(update={"train": tiny.write_rows(tmp_path / "long.jsonl", long)})
    with pytest.raises(DataError, match=r"no train row has anything to learn .* technique\.max_length 64"):
        train_trial(only_long, lora_base, Curve(), 8)
    assert DataError.exit_code == 2
    with pytest.raises(DataError, match="no validation row"):
        train_trial(spec().model_copy(update={"validation": only_long.train}), lora_base, Curve(), 8)
    assert train(lora_base)[0].outcome is Outcome.COMPLETE


def test_trials_share_tokenised_rows_unless_their_fields_change_them(new_base, train):
    base = new_base("lora")
    for changes in ({}, {"learning_rate": 1e-2}, {"trl": {"neftune_noise_alpha": 5.0}}, {"seed": 9}):
        train(base, **changes)
    assert len(base.tokenised) == 1
    shuffled = {"trl": {"shuffle_dataset": True}}
    first, again, other = (train(base, seed=seed, **shuffled)[1] for seed in (1, 1, 2))
    assert len(base.tokenised) == 3
    assert first.of("loss") == again.of("loss") != other.of("loss")


def expected_rate(schedule, step, total, warmup):
    """Learning rate of a step, from 1, as a part of the peak; by the schedules' definitions."""
    done = step - 1
    if schedule == "constant":
        return 1.0
    if done < warmup:
        return done / warmup
    progress = (done - warmup) / (total - warmup)
    return {
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "constant_with_warmup": 1.0,
        "inverse_sqrt": math.sqrt((warmup or 10_000) / (done + (0 if warmup else 10_000))),
    }[schedule]


@pytest.mark.parametrize(("schedule", "warmup"), SCHEDULES)
def test_learning_rates_follow_the_schedule(lora_base, train, schedule, warmup):
    _, curve = train(lora_base, lr_scheduler=schedule, epochs=2.0, points=1, **warmup)
    first = warmup.get("warmup_steps", math.ceil(6 * warmup.get("warmup_ratio", 0)))
    expected = [5e-3 * expected_rate(schedule, step, 6, first) for step in range(1, 7)]
    assert curve.of("learning_rate") == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_step_of_warmup_is_not_a_ratio_of_one(lora_base, spec):
    asked = training_arguments(spec(warmup_steps=1), lora_base)["warmup_steps"]
    assert asked == 1
    assert isinstance(asked, int)


def test_further_fields_of_trl_reach_it(lora_base, train, spec):
    asked = {"neftune_noise_alpha": 25.0, "adam_beta2": 0.9, "optim": "adamw_torch"}
    with lora_base.adapted(peft_config(spec().adapter, spec().hyperparameters), 0) as model:
        callback = ReportingCallback(Curve(), BestEvaluation("eval_loss", maximize=False), 1, None)
        trainer = build_sft(spec(trl=asked), lora_base, model, MicroBatch(8), callback)
        assert {name: getattr(trainer.args, name) for name in asked} == asked
    _, plain = train(lora_base)
    _, noisy = train(lora_base, trl=asked)
    assert noisy.of("loss") != plain.of("loss")


def test_weight_decay_and_clipping_reach_the_optimizer(lora_base, train):
    _, plain = train(lora_base)
    assert train(lora_base, weight_decay=5.0)[1].of("loss")[:1] == plain.of("loss")[:1]
    assert train(lora_base, weight_decay=5.0)[1].of("loss") != plain.of("loss")
    assert train(lora_base, max_grad_norm=1e-6)[1].of("loss") != plain.of("loss")


@pytest.mark.parametrize(
    ("total", "points", "expected"),
    [(6, 3, (2, 4, 6)), (7, 3, (3, 5, 7)), (2, 6, (1, 2)), (1, 6, (1,)), (10, 1, (10,)), (100, 4, (25, 50, 75, 100))],
)
def test_evaluations_are_spread_evenly_and_end_with_the_last_step(total, points, expected):
    assert evaluation_steps(total, points) == expected


GENERATION = tiny.CHAT_TEMPLATE.replace(
    "{{ message['content'] }}<|im_end|>\n",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n",
)


def test_assistant_only_learns_every_turn_of_the_assistants(new_base, spec, monkeypatch):
    base = new_base("lora")
    monkeypatch.setattr(base.tokenizer, "chat_template", GENERATION)
    technique = SFT(max_length=64, assistant_only=True)
    turns = [row for number in (7, 8) for row in tiny.row("messages", number)["messages"]]
    asked = spec(technique=technique, shape="messages")
    tiny.write_rows(asked.train, [{"messages": turns}])
    with base.adapted(peft_config(asked.adapter, asked.hyperparameters), 0) as model:
        train, _ = sft_rows(asked, base, model)
    learned = [token for token in train[0]["labels"] if token != -100]
    assert base.tokenizer.decode(learned) == "7<|im_end|>8<|im_end|>"
