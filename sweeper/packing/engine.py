"""Passes shared by all slots: their rows in one batch, one run of the base, a loss and gradients per slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from sweeper.packing.adapter import Segment, SlotAdapter
from sweeper.packing.batch import JointBatch, Part, TokenisedRow, join
from sweeper.packing.documents import attending
from sweeper.packing.grouped import groups
from sweeper.packing.layers import PackedLayers
from sweeper.packing.losses import token_losses
from sweeper.training.base_model import BaseModel


class Engine:
    """Runs passes of many slots over one base model.

    Args:
        base: The base model, which ``close`` restores.
        checkpointing: Whether to use gradient checkpointing.
        grouped: Whether to add all slots to a layer at once; None for what suits the device.
    """

    def __init__(self, base: BaseModel, *, checkpointing: bool = False, grouped: bool | None = None) -> None:
        self.base = base
        self.device = torch.device(base.device)
        self._checkpointing = checkpointing
        grouped = groups(base.model, self.device, base.dtype) if grouped is None else grouped
        self._layers = PackedLayers(base.model, grouped=grouped)

    def prepare(self, adapter: SlotAdapter) -> None:
        """Prepare the base for an adapter."""
        self._layers.prepare(adapter)

    def close(self) -> None:
        """Restore the base."""
        self._layers.close()

    def train(self, parts: Sequence[Part], items: Sequence[int]) -> list[float]:
        """Add the gradients of the parts' losses to their adapters, in one forward and one backward pass.

        Args:
            parts: Rows of different slots.
            items: The loss-carrying tokens of each part's whole batch, by which its summed losses are divided.

        Returns:
            Each part's share of its slot's loss. One that is not finite affects no other.

        Raises:
            Exception: When memory runs out; gradients may then be incomplete.
        """
        batch = join(parts, self.device)
        with self._reading(batch), self._training():  # the backward pass too: checkpointing runs layers again
            losses = [loss.sum() / count for loss, count in zip(self._token_losses(batch), items, strict=True)]
            joint = torch.stack(losses)
            torch.autograd.backward(joint.sum())
        for part in parts:
            part.adapter.gather()
        return [float(loss) for loss in joint.detach().cpu()]

    def mean_losses(
        self,
        adapters: Sequence[SlotAdapter],
        rows: Sequence[TokenisedRow],
        limit: int,
        on_pass: Callable[[], None] = lambda: None,
    ) -> list[float]:
        """Return the mean loss per token of ``rows`` under each adapter, all adapters in the same passes.

        A pass has at most ``limit`` tokens, unless one row under every adapter is more.
        """
        totals = torch.zeros(len(adapters), dtype=torch.float64)
        tokens = 0
        ordered = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)
        while ordered:
            taken = max(1, limit // (len(ordered[0]["input_ids"]) * len(adapters)))
            some, ordered = ordered[:taken], ordered[taken:]
            batch = join([Part(adapter, some) for adapter in adapters], self.device)
            with self._reading(batch), torch.no_grad():
                losses = self._token_losses(batch)
            totals += torch.stack([loss.double().sum() for loss in losses]).cpu()
            tokens += batch.predictions[0]
            on_pass()
        return [float(total) / max(1, tokens) for total in totals]

    @contextmanager
    def alone(self, adapter: SlotAdapter) -> Iterator[Any]:
        """Yield the base model with one adapter on all of its tokens, to generate with."""
        with self._layers.on([Segment(adapter, slice(None))]):
            yield self.base.model

    def _token_losses(self, batch: JointBatch) -> tuple[torch.Tensor, ...]:
        """Return the loss of every prediction of each part."""
        model = self.base.model
        with self._autocast():
            hidden = model.base_model(
                input_ids=batch.input_ids, position_ids=batch.documents.positions[None], use_cache=False
            ).last_hidden_state[0]
            losses = token_losses(hidden[batch.predicting], model.get_output_embeddings(), batch.targets)
        return torch.split(losses, batch.predictions)

    @contextmanager
    def _reading(self, batch: JointBatch) -> Iterator[None]:
        """Apply a batch's documents and adapters to the base."""
        with attending(self.base.model, batch.documents), self._layers.on(batch.segments):
            yield

    def _autocast(self) -> Any:
        """Compute as transformers' trainer does in half precision."""
        half = self.base.dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.base.dtype) if half else nullcontext()

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Put the base in training mode, with checkpointing if configured."""
        model = self.base.model
        with ExitStack() as undo:
            model.train()
            undo.callback(model.eval)
            if self._checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": self._layers.replayed})
                undo.callback(model.activation_checkpointing_disable)
            yield
