"""The pass that slots share: what each of them gets is what it gets alone, whoever runs beside it."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing_helpers import run
from tiny import Curve

from sweeper.config.technique import SFT
from sweeper.training.trial import train_trial

NAMES = ("loss", "grad_norm", "learning_rate")


def alone(spec, base, micro_batch=64):
    """What sweeper's one-trial training reports of a specification, by TRL's own trainer."""
    curve = Curve()
    result = train_trial(spec, base, curve, micro_batch)
    assert result.reason is None
    return curve


def agree(told, curve, rel=1e-4):
    for name in NAMES:
        assert [step[name] for step in told] == pytest.approx(curve.of(name), rel=rel if name == "loss" else 20 * rel)


DIFFERENT = (
    {"lora_rank": 4, "batch_size": 8},
    {"lora_rank": 8, "batch_size": 4, "lora_dropout": 0.2, "learning_rate": 1e-2, "seed": 5},
    {"lora_rank": 2, "batch_size": 16, "weight_decay": 0.1, "lr_scheduler": "cosine", "epochs": 3.0, "lora_alpha": 3.0},
)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_packed_trials_follow_the_curves_they_have_alone(base_of, spec_of, slot_of, engine_of, family, kind):
    base = base_of(family, kind)
    specs = [spec_of(base, number, **asked) for number, asked in enumerate(DIFFERENT)]
    curves = [alone(spec, base) for spec in specs]
    slots = [slot_of(base, spec) for spec in specs]
    told = run(engine_of(base, *slots), slots)
    for spec, curve in zip(specs, curves, strict=True):
        assert len(told[spec.number]) == len(curve.of("loss")) > 3
        agree(told[spec.number], curve)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_set_of_specifications_can_be_packed(base_of, spec_of, slot_of, engine_of, data):
    base = base_of("llama", data.draw(st.sampled_from(["lora", "qlora"])))
    asked = st.fixed_dictionaries(
        {
            "lora_rank": st.sampled_from([1, 2, 4, 16]),
            "lora_alpha": st.sampled_from([1.0, 8.0, 32.0]),
            "lora_dropout": st.sampled_from([0.0, 0.05, 0.5]),
            "target_modules": st.sampled_from(["all-linear", ("q_proj", "v_proj"), ("down_proj",)]),
            "learning_rate": st.sampled_from([1e-4, 1e-3, 5e-3]),
            "lr_scheduler": st.sampled_from(["linear", "cosine", "constant_with_warmup", "inverse_sqrt"]),
            "warmup_steps": st.sampled_from([0, 2]),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "max_grad_norm": st.sampled_from([0.1, 1.0]),
            "batch_size": st.sampled_from([1, 3, 8, 40]),
            "epochs": st.sampled_from([0.5, 1.0, 2.0]),
            "seed": st.integers(0, 2**31 - 1),
        }
    )
    sets = data.draw(st.lists(st.tuples(asked, st.sampled_from([1, 2, 64])), min_size=2, max_size=4))
    specs = [(spec_of(base, number, **one), rows) for number, (one, rows) in enumerate(sets)]
    curves = [alone(spec, base, rows) for spec, rows in specs]
    slots = [slot_of(base, spec, rows) for spec, rows in specs]
    told = run(engine_of(base, *slots), slots)
    for (spec, _), curve in zip(specs, curves, strict=True):
        agree(told[spec.number], curve)


def test_rows_that_trl_packs_are_packed_the_same(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    spec = spec_of(base, technique=SFT(max_length=64, packing=True), batch_size=2, lora_dropout=0.1)
    curve = alone(spec, base)
    slots = [slot_of(base, spec), slot_of(base, spec_of(base, 1))]
    assert "seq_lengths" in slots[0].part().rows[0]
    told = run(engine_of(base, *slots), slots)
    agree(told[0], curve)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_grouped_products_add_the_same(base_of, spec_of, slot_of, engine_of, dtype, checkpointing):
    """What a GPU runs, tried here: slots come and go, with other ranks, layers and dropout."""
    base = base_of("llama", "qlora", dtype)
    found = []
    for grouped in (False, True):
        slots = [
            slot_of(base, spec_of(base, 0, lora_rank=4, epochs=1.0)),
            slot_of(base, spec_of(base, 1, lora_rank=24, lora_dropout=0.2, seed=7)),
            slot_of(base, spec_of(base, 2, lora_rank=1, target_modules=("v_proj", "down_proj"), lora_alpha=3.0)),
        ]
        engine = engine_of(base, *slots, grouped=grouped, checkpointing=checkpointing)
        told = run(engine, slots[:2])
        told |= run(engine, slots[2:])
        found.append([step[name] for number in sorted(told) for step in told[number] for name in NAMES])
        found.append(engine.mean_losses([slot.adapter for slot in slots], list(slots[0].validation), 1000))
        engine.close()
    close = {"float32": 1e-4, "bfloat16": 2e-2}[dtype]
    assert found[2] == pytest.approx(found[0], rel=10 * close)
    assert found[3] == pytest.approx(found[1], rel=close)


def test_activations_computed_anew_draw_the_same_masks(base_of, spec_of, slot_of, engine_of):
    base = base_of("llama", "qlora")
    specs = [spec_of(base, number, lora_dropout=0.3, seed=number) for number in range(2)]
    plain, checked = ([slot_of(base, spec) for spec in specs] for _ in range(2))
    expected = run(engine_of(base, *plain), plain)
    assert run(engine_of(base, *checked, checkpointing=True), checked) == expected
    assert not base.model.training


def test_evaluations_are_those_of_each_alone(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    specs = [spec_of(base, number, **asked) for number, asked in enumerate(DIFFERENT)]
    curves = [alone(spec, base) for spec in specs]
    slots = [slot_of(base, spec) for spec in specs]
    engine = engine_of(base, *slots)
    run(engine, slots)
    for limit in (1, 100, 10_000):
        found = engine.mean_losses([slot.adapter for slot in slots], list(slots[0].validation), limit)
        assert found == pytest.approx([curve.of("eval_loss")[-1] for curve in curves], rel=1e-5)


def test_a_slot_that_is_no_longer_finite_touches_no_other(base_of, spec_of, slot_of, engine_of):
    base = base_of("llama", "qlora")
    healthy, beside = (slot_of(base, spec_of(base, lora_dropout=0.1)) for _ in range(2))
    sick = slot_of(base, spec_of(base, 1, seed=9))
    with torch.no_grad():
        for parameter in sick.adapter.parameters:
            parameter.fill_(math.nan)
    engine = engine_of(base, healthy, beside, sick)
    expected = run(engine, [beside])[0]
    losses = []
    while not healthy.has_ended:
        loss, other = engine.train([healthy.part(), sick.part()], [healthy.items, sick.items])
        assert math.isnan(other)
        sick.restart_step()
        losses.append(healthy.take(loss))
    assert [step["loss"] for step in losses] == pytest.approx([step["loss"] for step in expected], rel=1e-5)
    assert all(torch.isfinite(parameter).all() for parameter in healthy.adapter.parameters)


def test_the_order_of_slots_changes_nothing(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    found = []
    for order in (1, -1):
        slots = [slot_of(base, spec_of(base, number, **asked)) for number, asked in enumerate(DIFFERENT)][::order]
        told = run(engine_of(base, *slots), slots)
        found.append([step["loss"] for number in sorted(told) for step in told[number]])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_micro_batch_changes_nothing(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    whole, parts = slot_of(base, spec_of(base)), slot_of(base, spec_of(base, 1), 3)
    told = run(engine_of(base, whole, parts), [whole, parts])
    assert [step["loss"] for step in told[0]] == pytest.approx([step["loss"] for step in told[1]], rel=1e-5)
    assert whole.progress.tokens == parts.progress.tokens > 0


def test_a_closed_engine_leaves_the_base_as_it_was(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    slot = slot_of(base, spec_of(base))
    ids = torch.arange(12)[None]
    before = base.model(ids).logits
    engine = engine_of(base, slot)
    run(engine, [slot])
    assert torch.equal(base.model(ids).logits, before)  # no slot is on outside of a pass
    with engine.alone(slot.adapter) as model:
        assert not torch.allclose(model(ids).logits, before)
    engine.close()
    assert not any(module._forward_hooks for module in base.model.modules())
    assert base.model.config._attn_implementation == "sdpa"
    assert not base.model.training


def test_one_adapter_alone_answers_as_peft_does(base_of, spec_of, slot_of, engine_of):
    from peft import set_peft_model_state_dict

    from sweeper.training.adapters import peft_config

    base = base_of("llama", "qlora")
    spec = spec_of(base, learning_rate=5e-2)
    slot = slot_of(base, spec)
    engine = engine_of(base, slot)
    run(engine, [slot])
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad(), engine.alone(slot.adapter) as model:
        packed = model(ids).logits
    with torch.no_grad(), base.adapted(peft_config(spec.adapter, spec.hyperparameters), 0) as model:
        set_peft_model_state_dict(model, slot.adapter.state())
        assert torch.allclose(packed, model(ids).logits, atol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(packed, base.model(ids).logits, atol=1e-2)
