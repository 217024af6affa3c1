"""A slot frozen and thawed goes on bit for bit; what is damaged on disk is named."""

from __future__ import annotations

import json

import pytest
import torch
from packing_helpers import run

from sweeper.errors import StudyStateError
from sweeper.packing.frozen import freeze, thaw


def weights(slot):
    return [parameter.detach().clone() for parameter in slot.adapter.parameters]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"lr_scheduler": "cosine", "lora_dropout": 0.3, "batch_size": 4},
        {"trl": {"optim": "adafactor"}},
        {"trl": {"optim": "adamw_bnb_8bit"}},
        {"trl": {"optim": "sgd"}, "weight_decay": 0.1},
    ],
    ids=["adamw", "dropout and cosine", "adafactor", "8-bit adamw", "sgd"],
)
def test_a_thawed_slot_goes_on_as_if_it_had_never_stopped(base_of, spec_of, slot_of, engine_of, kind, dtype, asked):
    base = base_of("llama", kind, dtype)
    through, stopped = (slot_of(base, spec_of(base, number=number, **asked), 3) for number in (0, 0))
    engine = engine_of(base, through, stopped)
    expected = run(engine, [through])[0]
    told = run(engine, [stopped], steps=2)[0]
    engine.train([stopped.part()], [stopped.items])  # a part of the third step, which is undone and repeated
    stopped.take(0.0)
    stopped.offer({"eval_loss": 1.25})
    stopped.evaluated = 2
    freeze(stopped)
    again = thaw(stopped.spec, base)
    assert (again.progress, again.evaluated) == (stopped.progress, 2)
    assert again.output.started == stopped.output.started
    best = again.output.best
    assert (best.value, best.step, best.metrics) == (1.25, 2, {"eval_loss": 1.25})
    assert all(torch.equal(best.weights[name], value) for name, value in stopped.output.best.weights.items())
    engine.prepare(again.adapter)
    told += run(engine, [again])[0]
    assert told == expected
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(through), strict=True))
    assert torch.equal(again.generator.get_state(), through.generator.get_state())


def test_a_slot_may_be_frozen_twice_and_before_its_first_step(base_of, spec_of, slot_of, engine_of):
    base = base_of()
    through, stopped = (slot_of(base, spec_of(base, lora_dropout=0.2)) for _ in range(2))
    engine = engine_of(base, through, stopped)
    expected = run(engine, [through])[0]
    told = []
    for _ in range(3):
        freeze(stopped)
        stopped = thaw(stopped.spec, base)
        engine.prepare(stopped.adapter)
        told += run(engine, [stopped], steps=1)[0]
    told += run(engine, [stopped])[0]
    assert told == expected


@pytest.mark.parametrize("damage", ["cut", "no json", "no tensors", "garbage", "a field gone"])
def test_what_is_damaged_is_named(base_of, spec_of, slot_of, damage):
    base = base_of()
    slot = slot_of(base, spec_of(base))
    freeze(slot)
    folder = slot.output.paths.frozen
    assert sorted(path.name for path in folder.iterdir()) == ["seal.json", "slot.json", "slot.safetensors"]
    tensors, rest = folder / "slot.safetensors", folder / "slot.json"
    match damage:
        case "cut":
            tensors.write_bytes(tensors.read_bytes()[:-100])
        case "no json":
            rest.unlink()
        case "no tensors":
            tensors.unlink()
        case "garbage":
            rest.write_text("{")
        case "a field gone":
            rest.write_text(json.dumps({k: v for k, v in json.loads(rest.read_text()).items() if k != "scheduler"}))
    with pytest.raises(StudyStateError, match=r"cannot resume from the checkpoint in .*frozen .*restarts the trial"):
        thaw(slot.spec, base)
