"""The parts of a pass, each against what torch says of the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from sweeper.packing import losses
from sweeper.packing.adapter import Masks, Segment, SlotAdapter
from sweeper.packing.batch import Part, join, loss_tokens
from sweeper.packing.documents import Documents, _attention, attending
from sweeper.packing.layers import PackedLayers
from sweeper.packing.losses import token_losses

CPU = torch.device("cpu")


def adapter(*layers, rank=2, dropout=0.0, seed=0, width=8):
    torch.manual_seed(seed)
    weights = {}
    for name in layers:
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, width)
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(width, rank)
    scaling = dict.fromkeys(layers, 1.5)
    return SlotAdapter(weights, scaling, dropout, device="cpu", dtype=torch.float32, compute=torch.float32)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.requires_grad_(False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def added(layer, slot, name, x):
    """What a layer gives with one slot's LoRA, written out."""
    a, b = (slot.state()[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    return layer(x) + 1.5 * (x @ a.T) @ b.T


@pytest.mark.parametrize("grouped", [False, True])
def test_each_slot_is_added_to_its_own_tokens_with_its_own_gradients(grouped):
    model, one, other = Model(), adapter("first", "second"), adapter("second", rank=4, seed=1)
    layers = PackedLayers(model, grouped=grouped)
    for slot in (one, other):
        layers.prepare(slot)
    x = torch.randn(1, 7, 8)
    weight = torch.randn(1, 7, 8)
    with layers.on([Segment(one, slice(0, 3)), Segment(other, slice(3, 7))]):
        output = model(x)
        (output * weight).sum().backward()
    tensors = [tensor.clone().requires_grad_() for slot in (one, other) for tensor in slot.state().values()]
    a1, b1, a2, b2, a3, b3 = tensors

    def lora(layer, x, a, b):
        return layer(x) + 1.5 * (x @ a.T) @ b.T

    first = lora(model.second, torch.relu(lora(model.first, x[:, :3], a1, b1)), a2, b2)
    second = lora(model.second, torch.relu(model.first(x[:, 3:])), a3, b3)
    expected = torch.cat([first, second], dim=1)
    (expected * weight).sum().backward()
    assert torch.allclose(output, expected, atol=1e-5)
    found = [parameter.grad for slot in (one, other) for parameter in slot.parameters]
    for gradient, tensor in zip(found, tensors, strict=True):
        assert torch.allclose(gradient, tensor.grad, atol=1e-4)
    layers.close()
    assert torch.equal(model(x), model.second(torch.relu(model.first(x))))


@pytest.mark.parametrize("grouped", [False, True])
def test_gradients_add_up_until_they_are_cleared(grouped):
    model, slot = Model(), adapter("second")
    layers = PackedLayers(model, grouped=grouped)
    layers.prepare(slot)
    seen = []
    for _ in range(2):
        with layers.on([Segment(slot, slice(0, 3))]):
            model(torch.ones(1, 3, 8)).sum().backward()
        seen.append(slot.parameters[1].grad.clone())
    assert torch.allclose(seen[1], 2 * seen[0])
    slot.clear()
    assert not slot.parameters[1].grad.any()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_float32_input_meets_bfloat16_weights_and_dropout(grouped):
    """As after a layer norm under autocast."""
    weights = {f"base_model.model.second.lora_{part}.weight": torch.randn(8, 8) for part in "AB"}
    slot = SlotAdapter(weights, {"second": 1.5}, 0.5, device="cpu", dtype=torch.bfloat16, compute=torch.bfloat16)
    model = Model()
    layers = PackedLayers(model, grouped=grouped)
    layers.prepare(slot)
    x = torch.randn(1, 6, 8)
    with layers.on([Segment(slot, slice(0, 6), Masks(torch.Generator().manual_seed(0), (1, 6), None))]):
        output = model(x)
        output.sum().backward()
    assert output.dtype is torch.float32
    assert all(parameter.grad.any() for parameter in slot.parameters)


@pytest.mark.parametrize("inside", [None, torch.tensor([0, 1, 3, 4, 5])])
def test_dropout_drops_what_torch_drops_with_the_same_random_numbers(inside):
    rows = torch.randn(6 if inside is None else 5, 4)
    torch.manual_seed(3)
    expected = torch.nn.functional.dropout(torch.ones(2, 3, 4), 0.4).reshape(6, 4)
    masks = Masks(torch.Generator().manual_seed(3), (2, 3), inside)
    kept = masks.draw(0.4, rows)
    assert torch.equal(kept, expected if inside is None else expected[inside])
    assert not torch.equal(masks.draw(0.4, rows), kept)


@pytest.mark.parametrize("grouped", [False, True])
def test_dropped_inputs_carry_no_gradient(grouped):
    model, slot = Model(), adapter("second", dropout=0.5)
    layers = PackedLayers(model, grouped=grouped)
    layers.prepare(slot)
    x = torch.randn(1, 6, 8)
    segment = Segment(slot, slice(0, 6), Masks(torch.Generator().manual_seed(0), (1, 6), None))
    with layers.on([segment]):
        model(x).sum().backward()
    kept = Masks(torch.Generator().manual_seed(0), (1, 6), None).draw(0.5, x[0])
    a, b = (tensor.clone().requires_grad_() for tensor in slot.state().values())
    hidden = torch.relu(model.first(x))[0]
    (model.second(hidden) + 1.5 * ((hidden * kept) @ a.T) @ b.T).sum().backward()
    assert torch.allclose(slot.parameters[0].grad, a.grad, atol=1e-5)
    assert torch.allclose(slot.parameters[1].grad, b.grad, atol=1e-5)


@pytest.mark.parametrize("lengths", [(3, 5, 1), (4, 4), (6,), (40, 2, 3, 1, 39)])
@pytest.mark.parametrize("window", [None, 2, 99])
@pytest.mark.parametrize("key_heads", [1, 4])
def test_documents_attend_to_themselves_only(lengths, window, key_heads):
    torch.manual_seed(0)
    tokens = sum(lengths)
    query = torch.randn(1, 4, tokens, 8, requires_grad=True)
    key, value = (torch.randn(1, key_heads, tokens, 8, requires_grad=True) for _ in range(2))
    model = torch.nn.Module()
    model.config = type("Config", (), {"_attn_implementation": "sdpa"})()
    model.config.get_text_config = lambda: model.config
    with attending(model, Documents(lengths, CPU)):
        output, _ = _attention(model, query, key, value, None, scaling=0.3, sliding_window=window)
    assert model.config._attn_implementation == "sdpa"
    expected = []
    for start, length in zip(Documents(lengths, CPU).starts, lengths, strict=True):
        at = slice(start, start + length)
        back = torch.arange(length)[:, None] - torch.arange(length)
        mask = (back >= 0) & (back < (window or length))
        keys, values = (t[:, :, at].repeat_interleave(4 // key_heads, 1) for t in (key, value))
        expected.append(scaled_dot_product_attention(query[:, :, at], keys, values, attn_mask=mask, scale=0.3))
    whole = torch.cat(expected, dim=2).transpose(1, 2)
    assert output.shape == (1, tokens, 4, 8)
    assert torch.allclose(output, whole, atol=1e-5)
    weight = torch.randn_like(whole)
    found = torch.autograd.grad((output * weight).sum(), (query, key, value))
    for ours, plain in zip(found, torch.autograd.grad((whole * weight).sum(), (query, key, value)), strict=True):
        assert torch.allclose(ours, plain, atol=1e-4)


def test_positions_begin_anew_in_every_document():
    assert Documents((2, 3), CPU).positions.tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("at_a_time", [10**9, 40])
def test_token_losses_and_their_gradients_are_those_of_all_logits_at_once(at_a_time, monkeypatch):
    monkeypatch.setattr(losses, "_LOGITS", at_a_time)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 13).requires_grad_(False)
    hidden, targets = torch.randn(9, 6, requires_grad=True), torch.randint(13, (9,))
    weight = torch.rand(9)
    found = token_losses(hidden, head, targets)
    expected = cross_entropy(head(hidden), targets, reduction="none")
    assert torch.allclose(found, expected, atol=1e-6)
    (ours,) = torch.autograd.grad((found * weight).sum(), hidden)
    (plain,) = torch.autograd.grad((expected * weight).sum(), hidden)
    assert torch.allclose(ours, plain, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(token_losses(hidden, head, targets), found)


def test_where_nothing_is_to_be_predicted_nothing_is_lost():
    head = torch.nn.Linear(6, 13).requires_grad_(False)
    hidden = torch.randn(0, 6, requires_grad=True)
    found = token_losses(hidden, head, torch.zeros(0, dtype=torch.long))
    assert found.shape == (0,)
    found.sum().backward()


ROWS = (
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
    {"input_ids": [8, 9], "labels": [-100, 9]},
    {"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4], "seq_lengths": [2, 2]},
    {"input_ids": [1, 2, 3]},
)


def test_rows_are_laid_end_to_end():
    first, second = adapter("first"), adapter("first")
    batch = join([Part(first, ROWS[:2]), Part(second, ROWS[2:])], CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4, 1, 2, 3]]
    assert batch.documents.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 1, 0, 1, 2]
    assert batch.predicting.tolist() == [0, 1, 3, 5, 7, 9, 10]
    assert batch.targets.tolist() == [6, 7, 9, 2, 4, 2, 3]
    assert batch.predictions == [3, 4]
    assert [(part.adapter, part.tokens) for part in batch.segments] == [(first, slice(0, 5)), (second, slice(5, 12))]


@pytest.mark.parametrize(("row", "expected"), list(zip(ROWS, (2, 1, 2, 2), strict=True)))
def test_what_carries_a_loss_is_counted(row, expected):
    assert loss_tokens(row) == expected


def test_weights_kept_in_another_type_are_copied_for_the_layers():
    weights = {f"base_model.model.first.lora_{part}.weight": torch.rand(2, 2) for part in "AB"}
    slot = SlotAdapter(weights, {"first": 1.0}, 0.0, device="cpu", dtype=torch.float32, compute=torch.bfloat16)
    factors = slot.layers["first"]
    assert factors.a.dtype is torch.bfloat16
    factors.a_gradient.fill_(0.5)
    slot.gather()
    assert torch.equal(slot.parameters[0].grad, torch.full((2, 2), 0.5))
    assert not factors.a_gradient.any()
    with torch.no_grad():
        slot.parameters[0].add_(1.0)
    slot.refresh()
    assert torch.equal(factors.a, slot.parameters[0].to(torch.bfloat16))
