"""The micro-batch changes what fits in memory, never what is learned."""

from __future__ import annotations

import pytest
import torch
from tiny import Curve
from variants import mostly_long

from sweeper.config.technique import SFT
from sweeper.config.trial import Outcome
from sweeper.errors import OutOfMemoryError
from sweeper.training.micro_batch import MicroBatch, WholeBatch, is_out_of_memory, until_it_fits


class SmallMemory:
    """A device on which a layer's forward pass takes at most so many rows, in training, in evaluation or in both."""

    def __init__(self, monkeypatch, model, rows, modes=(True, False)):
        self.largest = 0
        self.refused = 0
        layer = model.model.layers[0]
        forward = layer.forward

        def limited(hidden, *arguments, **named):
            if layer.training in modes and len(hidden) > rows:
                self.refused += 1
                raise torch.OutOfMemoryError(f"{len(hidden)} rows are too many")
            if layer.training in modes:
                self.largest = max(self.largest, len(hidden))
            return forward(hidden, *arguments, **named)

        monkeypatch.setattr(layer, "forward", limited)


def losses(curve):
    return [*curve.of("loss"), *curve.of("eval_loss")]


@pytest.mark.parametrize("shape", mostly_long(["prompt_completion", "text", "messages"], "messages"))
def test_any_micro_batch_gives_the_same_losses_and_gradients(lora_base, train, shape):
    (whole, reference), *others = [train(lora_base, shape=shape, micro_batch=rows) for rows in (8, 3, 1)]
    assert whole.outcome is Outcome.COMPLETE
    for result, curve in others:
        assert curve.steps.keys() == reference.steps.keys()
        assert losses(curve) == pytest.approx(losses(reference), rel=1e-4)
        assert curve.of("grad_norm") == pytest.approx(reference.of("grad_norm"), rel=1e-3)
        assert result.tokens == whole.tokens


def test_packed_rows_too(lora_base, train):
    packed = SFT(max_length=48, packing=True, completion_only=False)
    _, reference = train(lora_base, technique=packed, shape="text")
    _, one = train(lora_base, technique=packed, shape="text", micro_batch=1)
    assert losses(one) == pytest.approx(losses(reference), rel=1e-4)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_where_memory_runs_out_the_step_is_repeated_in_smaller_parts(request, train, monkeypatch, kind):
    base = request.getfixturevalue(f"{kind}_base")
    plain, reference = train(base, kind)
    memory = SmallMemory(monkeypatch, base.model, rows=3)
    result, curve = train(base, kind, number=1)
    assert (result.outcome, result.micro_batch) == (Outcome.COMPLETE, 2)
    assert memory.refused == 2  # 8 rows, then 4, both in the first step; it stays at 2 after that
    assert memory.largest == 2
    assert losses(curve) == pytest.approx(losses(reference), rel=1e-4)
    assert (result.tokens, result.steps) == (plain.tokens, plain.steps)


def test_dropout_falls_the_same_in_a_repeated_step(lora_base, train, monkeypatch):
    _, reference = train(lora_base, lora_dropout=0.3, micro_batch=2)
    SmallMemory(monkeypatch, lora_base.model, rows=3)
    _, curve = train(lora_base, lora_dropout=0.3)
    assert losses(curve) == pytest.approx(losses(reference), rel=1e-4)


def test_memory_may_run_out_in_an_evaluation_only(lora_base, train, monkeypatch):
    _, reference = train(lora_base)
    memory = SmallMemory(monkeypatch, lora_base.model, rows=2, modes=(False,))
    result, curve = train(lora_base)
    assert (result.outcome, result.micro_batch) == (Outcome.COMPLETE, 2)
    assert memory.largest == 2
    assert losses(curve) == pytest.approx(losses(reference), rel=1e-4)


@pytest.mark.parametrize("modes", [(True,), (False,)], ids=["training", "evaluation"])
def test_a_single_row_that_does_not_fit_is_infeasible(lora_base, train, spec, monkeypatch, modes):
    with monkeypatch.context() as patched:
        SmallMemory(patched, lora_base.model, rows=0, modes=modes)
        result, _ = train(lora_base)
    assert (result.outcome, result.micro_batch, result.value) == (Outcome.INFEASIBLE, 1, None)
    assert "a single row does not fit in memory: 1 rows are too many" in result.reason
    assert not (spec().folder / "adapter").exists()
    assert train(lora_base)[0].outcome is Outcome.COMPLETE


def test_memory_that_runs_out_beside_the_steps_is_infeasible_too(lora_base, train, monkeypatch):
    def step(*_, **__):
        raise torch.OutOfMemoryError("no room for the optimizer")

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", step)
        result, _ = train(lora_base)
    assert result.outcome is Outcome.INFEASIBLE
    assert "no room for the optimizer" in result.reason


def test_the_micro_batch_is_never_above_the_batch(lora_base, train):
    result, _ = train(lora_base, batch_size=4, micro_batch=64)
    assert result.micro_batch == 4


def test_halving_repeats_with_the_same_random_numbers_and_ends_at_one():
    micro_batch, drawn, undone = MicroBatch(8), [], []

    def attempt():
        drawn.append(torch.rand(1).item())
        if micro_batch.rows > 1:
            raise MemoryError
        return "done"

    assert until_it_fits(micro_batch, attempt, lambda: undone.append(micro_batch.rows)) == "done"
    assert len(set(drawn)) == 1
    assert undone == [8, 4, 2]
    with pytest.raises(OutOfMemoryError, match="a single row"):
        micro_batch.halve(MemoryError())


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(ZeroDivisionError):
        until_it_fits(MicroBatch(8), lambda: 1 / 0, lambda: None)
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_rows_go_through_longest_first():
    whole = WholeBatch([{"input_ids": [0] * length} for length in (3, 9, 5, 1, 7)])
    assert [[len(row["input_ids"]) for row in part] for part in whole.parts(2)] == [[9, 7], [5, 3], [1]]


def test_a_curve_has_every_step(lora_base, train):
    result, curve = train(lora_base, rows=22, batch_size=8, epochs=2.0, points=3)
    assert isinstance(curve, Curve)
    assert (result.steps, result.total_steps, result.epochs_trained) == (6, 6, 2.0)
    assert sorted(curve.steps) == [1, 2, 3, 4, 5, 6]
    assert sorted(curve.evaluations) == [2, 4, 6]
    assert curve.of("eval_loss")[-1] < curve.of("eval_loss")[0]
    assert [curve.steps[step]["progress"] for step in (3, 6)] == [0.5, 1.0]
