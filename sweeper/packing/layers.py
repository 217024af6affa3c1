"""LoRA of many slots in one layer: each slot's factors on its own tokens, added to the base's output in place.

The backward pass itself sums the gradients where the slots keep them: autograd would make a node, a tensor and an
addition for every factor of every slot. On a CPU a loop over the slots is fastest, as nothing is padded or masked; on a
GPU ``grouped`` makes the same sums in fewer kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from sweeper.packing.adapter import Factors, Segment, SlotAdapter
from sweeper.packing.grouped import Stacks, add_grouped


class PackedLayers:
    """Adds the slots' LoRA to the layers of a base model, by forward hooks that ``close`` removes.

    ``grouped`` adds all slots at once instead of one after the other.
    """

    def __init__(self, model: PreTrainedModel, *, grouped: bool = False) -> None:
        self._model = model
        self._grouped, self._stacking = grouped, False
        self._stacks = Stacks()
        self._handles: dict[str, Any] = {}
        self._segments: Sequence[Segment] = ()
        # Requires a gradient, so that a layer whose input needs none takes part in the backward pass.
        self._anchor = torch.zeros((), requires_grad=True)

    def prepare(self, adapter: SlotAdapter) -> None:
        """Hook every layer of the adapter."""
        for name in adapter.layers.keys() - self._handles.keys():
            module = self._model.get_submodule(name)
            self._handles[name] = module.register_forward_hook(self._hook(name))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    @contextmanager
    def on(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Apply the segments' adapters within a ``with`` block, which includes the backward pass."""
        self._segments = segments
        self._stacking = self._grouped and all(part.tokens.stop is not None for part in segments)
        try:
            if self._stacking:
                self._stacks.fill(segments)
            yield
            if self._stacking:
                self._stacks.scatter()
        finally:
            self._segments, self._stacking = (), False

    def replayed(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return torch's context managers for a checkpointed block: its recomputation draws the same dropout masks."""
        generators = [part.masks.generator for part in self._segments if part.masks is not None]
        drawn_from: list[torch.Tensor] = []

        @contextmanager
        def first() -> Iterator[None]:
            drawn_from.extend(generator.get_state() for generator in generators)
            yield

        @contextmanager
        def again() -> Iterator[None]:
            now = [generator.get_state() for generator in generators]
            _set_states(generators, drawn_from)
            try:
                yield
            finally:
                _set_states(generators, now)

        return first(), again()

    def _hook(self, name: str) -> Any:
        def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            parts = [(part, part.adapter.layers[name]) for part in self._segments if name in part.adapter.layers]
            if not parts:
                return output
            if output._is_view():  # a layer with a bias gives one, which autograd cannot follow a change of in place
                output = output.clone()
            if self._stacking:
                return add_grouped(inputs[0], output, self._anchor, name, self._stacks)
            added: torch.Tensor = _Lora.apply(inputs[0], output, self._anchor, parts)  # type: ignore[no-untyped-call]
            return added

        return add


def _set_states(generators: Sequence[torch.Generator], states: Sequence[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


class _Lora(torch.autograd.Function):
    """``output[tokens] += scaling * (dropped(x[tokens]) @ a.T) @ b.T`` for every slot, in place."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, output: torch.Tensor, anchor: torch.Tensor, parts: list[tuple[Segment, Factors]]
    ) -> torch.Tensor:
        rows, added = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
        saved: list[torch.Tensor | None] = []
        with torch.autocast(x.device.type, enabled=False):
            for part, factors in parts:
                saved += _add(rows, added[part.tokens], part, factors)
        ctx.mark_dirty(output)
        ctx.save_for_backward(x, *saved)  # not kept as attributes: checkpointing sees only what is saved
        ctx.parts = parts
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        x, *saved = ctx.saved_tensors
        rows, inputs = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        back = _like(inputs, ctx.parts) if ctx.needs_input_grad[0] else None
        with torch.autocast(x.device.type, enabled=False):
            for (part, factors), reduced, kept in zip(ctx.parts, saved[::2], saved[1::2], strict=True):
                place = None if back is None else back[part.tokens]
                _add_back(rows[part.tokens], inputs[part.tokens], reduced, kept, factors, place)
        return None if back is None else back.view(x.shape), gradient, None, None


def _like(rows: torch.Tensor, parts: list[tuple[Segment, Factors]]) -> torch.Tensor:
    """Return an array for the gradient of ``rows``, zero if some part will not be written."""
    written = sum(part.tokens.stop - part.tokens.start for part, _ in parts)
    return torch.empty_like(rows) if written == len(rows) else torch.zeros_like(rows)


def _add(
    rows: torch.Tensor, place: torch.Tensor, part: Segment, factors: Factors
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Add a slot's LoRA to its place in the output; return what the backward pass needs beside the input."""
    inputs = rows[part.tokens].to(factors.a.dtype)
    kept = None
    if part.masks is not None and part.adapter.dropout > 0:
        kept = part.masks.draw(part.adapter.dropout, inputs)
        inputs = inputs * kept
    reduced = inputs @ factors.a.t()
    if place.dtype is reduced.dtype:
        place.addmm_(reduced, factors.b.t(), alpha=factors.scaling)
    else:
        place += factors.scaling * (reduced @ factors.b.t())
    return reduced, kept


def _add_back(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    reduced: torch.Tensor,
    kept: torch.Tensor | None,
    factors: Factors,
    place: torch.Tensor | None,
) -> None:
    """Sum up a slot's gradients, and write the gradient of its input to ``place``."""
    gradient, inputs = gradient.to(factors.b.dtype), inputs.to(factors.a.dtype)
    if kept is not None:
        inputs = inputs * kept
    factors.b_gradient.addmm_(gradient.t(), reduced, alpha=factors.scaling)
    through = (gradient @ factors.b).mul_(factors.scaling)
    factors.a_gradient.addmm_(through.t(), inputs)
    if place is None:
        return
    if kept is None and place.dtype is through.dtype:
        torch.mm(through, factors.a, out=place)
    else:
        place.copy_(through @ factors.a if kept is None else (through @ factors.a).mul_(kept))
