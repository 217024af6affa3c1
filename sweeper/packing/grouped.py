"""LoRA of many slots in six grouped products a layer, whatever the number of slots; ``layers`` adds slot by slot.

For GPUs, where launching thousands of small kernels costs more than their arithmetic. The factors of all slots are
stacked, zero-padded to one rank: the padding adds nothing, and its gradient is never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import grouped_mm

if TYPE_CHECKING:
    from sweeper.packing.adapter import Segment, SlotAdapter

_RANK_MULTIPLE = 16
"""Ranks are padded to this: grouped products want rows of a multiple of 16 bytes."""

_CAPABILITY = (8, 0)  # NVIDIA Ampere, the first with bfloat16


def groups(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether grouped products work for a base model: on a GPU, in bfloat16, with widths a multiple of 8."""
    if device.type != "cuda" or dtype is not torch.bfloat16 or torch.cuda.get_device_capability(device) < _CAPABILITY:
        return False
    widths = {width for m in model.modules() for width in (getattr(m, "in_features", 0), getattr(m, "out_features", 0))}
    return all(width % 8 == 0 for width in widths)


@dataclass(frozen=True)
class Stack:
    """One layer's factors of all slots: ``a`` (slots, rank, in), ``b`` (slots, out, rank) times each slot's scaling."""

    a: torch.Tensor
    b: torch.Tensor


class Stacks:
    """The stacks of a pass's slots, reused while the slots stay the same."""

    def __init__(self) -> None:
        self._of: tuple[SlotAdapter, ...] = ()
        self._stacks: dict[str, Stack] = {}
        self._gradients: dict[str, Stack] = {}
        self.ends = torch.zeros(0, dtype=torch.int32)
        self._segments: Sequence[Segment] = ()

    def fill(self, segments: Sequence[Segment]) -> None:
        """Copy the current weights of a joined batch's segments, in order and without gaps, into the stacks."""
        self._segments = segments
        device = segments[0].adapter.parameters[0].device
        self.ends = torch.tensor([part.tokens.stop for part in segments], dtype=torch.int32, device=device)
        slots = tuple(part.adapter for part in segments)
        if slots != self._of:
            self._of, self._stacks = slots, self._empty(segments)
        self._gradients = {}
        stacked, factors, scaled, scalings = [], [], [], []
        for place, part in enumerate(segments):
            for name, of in part.adapter.layers.items():
                stack, rank = self._stacks[name], len(of.a)
                stacked += [stack.a[place, :rank], stack.b[place, :, :rank]]
                factors += [of.a, of.b]
                scaled.append(stack.b[place, :, :rank])
                scalings.append(of.scaling)
        torch._foreach_copy_(stacked, factors)
        torch._foreach_mul_(scaled, scalings)

    def __contains__(self, name: str) -> bool:
        return name in self._stacks

    def __getitem__(self, name: str) -> Stack:
        return self._stacks[name]

    def add(self, name: str, a: torch.Tensor, b: torch.Tensor) -> None:
        """Sum up the gradients of a layer's stack, until ``scatter``."""
        before = self._gradients.get(name)
        self._gradients[name] = Stack(a, b) if before is None else Stack(before.a + a, before.b + b)

    def scatter(self) -> None:
        """Add the gradients of the pass to those of the slots."""
        targets, gradients, scaled, scalings = [], [], [], []
        for place, part in enumerate(self._segments):
            for name, of in part.adapter.layers.items():
                if name not in self._gradients:
                    continue
                stack, rank = self._gradients[name], len(of.a)
                targets += [of.a_gradient, of.b_gradient]
                gradients += [stack.a[place, :rank], stack.b[place, :, :rank]]
                scaled.append(stack.b[place, :, :rank])
                scalings.append(of.scaling)
        if targets:
            torch._foreach_mul_(scaled, scalings)
            torch._foreach_add_(targets, gradients)
        self._gradients = {}

    @staticmethod
    def _empty(segments: Sequence[Segment]) -> dict[str, Stack]:
        """Return stacks of zeros, wide enough for the largest rank."""
        factors = {name: of for part in segments for name, of in part.adapter.layers.items()}
        largest = max(len(of.a) for part in segments for of in part.adapter.layers.values())
        rank = -(-largest // _RANK_MULTIPLE) * _RANK_MULTIPLE
        return {
            name: Stack(
                of.a.new_zeros(len(segments), rank, of.a.shape[1]), of.b.new_zeros(len(segments), len(of.b), rank)
            )
            for name, of in factors.items()
        }


def add_grouped(x: torch.Tensor, output: torch.Tensor, anchor: torch.Tensor, name: str, stacks: Stacks) -> torch.Tensor:
    """Add every slot's LoRA of layer ``name`` to its own tokens in ``output``, in place, and return that.

    Args:
        x: The layer's input, shape (..., in).
        output: The base layer's output, shape (..., out).
        anchor: A tensor that requires a gradient.
        name: The layer.
        stacks: Filled with the slots of the pass; the gradients of the factors go there.
    """
    added: torch.Tensor = _GroupedLora.apply(x, output, anchor, name, stacks)  # type: ignore[no-untyped-call]
    return added


class _GroupedLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, output: torch.Tensor, anchor: torch.Tensor, name: str, stacks: Stacks
    ) -> torch.Tensor:
        stack, rows = stacks[name], x.reshape(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            inputs = rows.to(stack.a.dtype)
            kept = _kept(inputs, stacks._segments)
            inputs = inputs if kept is None else inputs * kept
            reduced = grouped_mm(inputs, stack.a.transpose(1, 2), offs=stacks.ends)
            added = grouped_mm(reduced, stack.b.transpose(1, 2), offs=stacks.ends)
        output.view(-1, output.shape[-1]).add_(added)
        ctx.mark_dirty(output)
        ctx.save_for_backward(x, reduced, kept)
        ctx.name, ctx.stacks = name, stacks
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None, None]:
        x, reduced, kept = ctx.saved_tensors
        stack, ends = ctx.stacks[ctx.name], ctx.stacks.ends
        rows = gradient.reshape(-1, gradient.shape[-1]).to(stack.b.dtype).contiguous()
        back = None
        with torch.autocast(x.device.type, enabled=False):
            inputs = x.reshape(-1, x.shape[-1]).to(stack.a.dtype)
            inputs = inputs if kept is None else inputs * kept
            through = grouped_mm(rows, stack.b, offs=ends)
            ctx.stacks.add(
                ctx.name,
                grouped_mm(through.t(), inputs, offs=ends),
                grouped_mm(rows.t(), reduced, offs=ends),
            )
            if ctx.needs_input_grad[0]:
                back = grouped_mm(through, stack.a, offs=ends)
                back = (back if kept is None else back * kept).to(x.dtype).view(x.shape)
        return back, gradient, None, None, None


def _kept(rows: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor | None:
    """Return the dropout masks of all slots, or None without dropout."""
    dropping = [part for part in segments if part.masks is not None and part.adapter.dropout > 0]
    if not dropping:
        return None
    kept = torch.ones_like(rows)
    for part in dropping:
        assert part.masks is not None
        kept[part.tokens] = part.masks.draw(part.adapter.dropout, rows[part.tokens])
    return kept
