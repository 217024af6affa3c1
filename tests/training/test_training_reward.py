"""Reward models: their head, their loss, and that they learn which answer is better."""

from __future__ import annotations

import json

import pytest
import tiny

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.model import ModelConfig
from sweeper.config.technique import RewardModel
from sweeper.config.trial import Outcome
from sweeper.errors import DataError

ADAPTERS = {"lora": LoRA(), "qlora": QLoRA()}


@pytest.fixture(scope="module")
def scoring(tiny_model):
    """Bases with a head that scores, each loaded once."""
    from sweeper.training.base_model import load_base

    return {
        kind: load_base(tiny_model, ModelConfig(name="tiny"), adapter, "cpu", "score")
        for kind, adapter in ADAPTERS.items()
    }


def reward_spec(model, folder, kind="lora", shape="same_preference", **changes):
    technique = RewardModel(max_length=changes.pop("max_length", 64))
    decides = {"metric": "eval_loss", "metrics": ("preference_accuracy",)}
    return tiny.trial_spec(
        model, folder, adapter=ADAPTERS[kind], shape=shape, technique=technique, **{**decides, **changes}
    )


def trained(base, spec, micro_batch=8):
    from sweeper.training.trial import train_trial

    curve = tiny.Curve()
    return train_trial(spec, base, curve, micro_batch), curve


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_the_head_is_the_same_in_every_process_and_is_not_quantised(scoring, tiny_model, kind):
    import torch

    from sweeper.training.base_model import load_base

    torch.manual_seed(99)
    again = load_base(tiny_model, ModelConfig(name="tiny"), ADAPTERS[kind], "cpu", "score")
    assert again.model.score.weight.shape == (1, 64)
    assert again.model.score.weight.dtype is torch.float32
    assert torch.equal(again.model.score.weight, scoring[kind].model.score.weight)
    assert again.model.config.pad_token_id == again.tokenizer.pad_token_id


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_it_learns_and_leaves_the_base_as_it_was(scoring, tiny_model, tmp_path, kind):
    import torch
    from safetensors.torch import load_file

    base = scoring[kind]
    before = base.model.score.weight.clone()
    spec = reward_spec(tiny_model, tmp_path, kind, learning_rate=2e-2, epochs=4.0)
    result, curve = trained(base, spec)
    assert result.outcome is Outcome.COMPLETE
    losses = curve.of("loss")
    assert len(losses) == result.total_steps == 12
    assert losses[-1] < 0.5 * losses[0]
    assert type(base.model.score) is torch.nn.Linear
    assert torch.equal(base.model.score.weight, before)
    saved = load_file(spec.folder / "adapter" / "adapter_model.safetensors")
    assert any(name.endswith("score.weight") for name in saved)
    with base.with_adapter(spec.folder / "adapter"):
        pass
    assert torch.equal(base.model.score.weight, before)


def test_the_loss_is_the_same_in_any_number_of_parts(scoring, tiny_model, tmp_path):
    whole, parts = (
        trained(scoring["lora"], reward_spec(tiny_model, tmp_path / str(rows), rows=21), rows)[1] for rows in (8, 3)
    )
    assert parts.of("loss") == pytest.approx(whole.of("loss"), rel=1e-5)
    assert parts.of("eval_loss") == pytest.approx(whole.of("eval_loss"), rel=1e-5)


def test_margins_enter_the_loss_where_there_are_any(scoring, tiny_model, tmp_path):
    """-log sigmoid(chosen - rejected - margin), by hand from the model's own scores before it has learned anything."""
    import torch
    from torch.nn.functional import logsigmoid

    from sweeper.data.splits import read_prepared
    from sweeper.evaluation.losses import answer_scores
    from sweeper.evaluation.preferences import answers_in

    base = scoring["lora"]
    spec = reward_spec(tiny_model, tmp_path, shape="preference", learning_rate=1e-12, epochs=1.0, rows=8)
    rows = read_prepared(spec.train)
    rows[0]["margin"], rows[5]["margin"] = 2.0, 0.5  # the others have none, which is a margin of 0
    tiny.write_rows(spec.train, rows)
    scores = torch.tensor(answer_scores(base.model, answers_in(rows, base.tokenizer)))
    margins = torch.tensor([row.get("margin", 0.0) for row in rows])
    by_hand = -logsigmoid(scores[:8] - scores[8:] - margins).mean()
    _, curve = trained(base, spec, micro_batch=3)
    assert curve.of("loss") == pytest.approx([float(by_hand)], rel=1e-5)


def test_pairs_that_are_too_long_are_dropped_and_none_left_is_a_fault(scoring, tiny_model, tmp_path):
    base = scoring["lora"]
    spec = reward_spec(tiny_model, tmp_path, shape="preference", rows=16)
    rows = [json.loads(line) for line in spec.train.read_text().splitlines()]
    rows[3]["rejected"] = "9 " * 100
    tiny.write_rows(spec.train, rows)
    result, _ = trained(base, spec)
    assert result.total_steps == 2 * 2  # 15 rows are left, in batches of 8
    with pytest.raises(DataError, match=r"no train row is left: one answer of every pair is longer than"):
        tiny.write_rows(spec.train, [{**row, "chosen": "9 " * 100} for row in rows])
        trained(base, spec)
