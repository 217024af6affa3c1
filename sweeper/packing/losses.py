"""The language-model head and token losses, without holding the logits of all tokens at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

_LOGITS = 2**24
"""Logits held at a time: 64 MiB in float32."""


def token_losses(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
    """Return each target's negative log-likelihood (nats) in float32, shape (N,).

    A token's loss depends on its own hidden state alone, so the forward pass already computes its gradient there, N x H
    numbers, and the backward pass scales it.

    Args:
        hidden: The predicting hidden states, shape (N, H).
        head: The frozen output layer, from H to the vocabulary.
        targets: The tokens to predict, shape (N,).
    """
    if not len(targets):
        return hidden.float().sum(-1)  # no loss, but still connected to the model
    losses: torch.Tensor = _TokenLosses.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return losses


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        size = max(1, _LOGITS // int(head.weight.shape[0]))
        losses: list[torch.Tensor] = []
        gradients: list[torch.Tensor] = []
        for start in range(0, len(targets), size):
            part = hidden[start : start + size].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = head(part).float()
                loss = cross_entropy(logits, targets[start : start + size], reduction="none")
                if wanted:
                    gradients += torch.autograd.grad(loss.sum(), part)
            losses.append(loss.detach())
        ctx.gradients = torch.cat(gradients) if wanted else None
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.gradients * gradient.to(ctx.gradients.dtype)[:, None], None, None
