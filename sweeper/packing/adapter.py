"""One trial's LoRA weights in one flat tensor, each layer's two factors as views of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Factors:
    """The LoRA of one layer: ``scaling * (x @ a.T) @ b.T``.

    Attributes:
        a: Shape (rank, in), in the type that the base computes in; its gradient is summed in ``a_gradient``.
        b: Shape (out, rank); likewise.
        scaling: LoRA's alpha / rank, or alpha / sqrt(rank).
    """

    a: torch.Tensor
    b: torch.Tensor
    a_gradient: torch.Tensor
    b_gradient: torch.Tensor
    scaling: float


class SlotAdapter:
    """The weights of one trial.

    Clearing the gradient, copying and freezing are one operation each, instead of two for every layer.

    Args:
        weights: The factors by PEFT's names.
        scaling: LoRA's scaling by layer.
        dropout: Probability of dropping a layer's inputs in training.
        device: ``cpu`` or ``cuda:N``.
        dtype: The type of the weights and their optimizer state.
        compute: The type that the base computes in.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        scaling: Mapping[str, float],
        dropout: float,
        *,
        device: str,
        dtype: torch.dtype,
        compute: torch.dtype,
    ) -> None:
        self.scaling = dict(scaling)
        self.dropout = dropout
        self._names = tuple(weights)
        self._shapes = tuple(tensor.shape for tensor in weights.values())
        flat = torch.cat([tensor.detach().reshape(-1).to(device, dtype) for tensor in weights.values()])
        self._flat, self._gradient = flat, torch.zeros_like(flat)
        # If the weights are of another type than the base computes in, the layers work with copies.
        same = dtype is compute
        self._working = flat if same else flat.to(compute)
        self._working_gradient = self._gradient if same else torch.zeros_like(self._working)
        self.parameters = [torch.nn.Parameter(view) for view in self._views(flat)]
        for parameter, gradient in zip(self.parameters, self._views(self._gradient), strict=True):
            parameter.grad = gradient
        self.layers = self._factors()

    @classmethod
    def of(cls, model: PeftModel, dropout: float, compute: torch.dtype) -> SlotAdapter:
        """Copy the weights of the adapter of ``model``, which are all of one type."""
        base = model.get_base_model()
        scaling = {
            name: module.scaling["default"] for name, module in base.named_modules() if isinstance(module, LoraLayer)
        }
        device = str(base.get_input_embeddings().weight.device)
        weights = get_peft_model_state_dict(model)
        dtype = next(iter(weights.values())).dtype
        return cls(weights, scaling, dropout, device=device, dtype=dtype, compute=compute)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights by PEFT's names, as views."""
        return dict(zip(self._names, self._views(self._flat), strict=True))

    def gather(self) -> None:
        """Add what a backward pass left to the gradients that the optimizer reads."""
        if self._working_gradient is not self._gradient:
            self._gradient += self._working_gradient
            self._working_gradient.zero_()

    def clear(self) -> None:
        """Set the gradients to zero."""
        self._gradient.zero_()
        self._working_gradient.zero_()

    def refresh(self) -> None:
        """Copy what the optimizer changed to the layers."""
        if self._working is not self._flat:
            self._working.copy_(self._flat)

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        parts = torch.split(flat, [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _factors(self) -> dict[str, Factors]:
        weights = dict(zip(self._names, self._views(self._working), strict=True))
        gradients = dict(zip(self._names, self._views(self._working_gradient), strict=True))
        found = {}
        for layer, scaling in self.scaling.items():
            a, b = _PREFIX + layer + _A, _PREFIX + layer + _B
            found[layer] = Factors(weights[a], weights[b], gradients[a], gradients[b], scaling)
        return found


@dataclass(frozen=True)
class Masks:
    """Draws the dropout masks of one slot, from its own generator and in the shape of its rows when trained alone.

    Attributes:
        generator: The slot's own.
        shape: Rows and padded length of the slot's batch.
        inside: Places in that shape that hold a token, shape (tokens,); None for all.
    """

    generator: torch.Generator
    shape: tuple[int, int]
    inside: torch.Tensor | None

    def draw(self, probability: float, like: torch.Tensor) -> torch.Tensor:
        """Return a mask of the shape of ``like``: 0 for dropped values, 1 / (1 - probability) for the rest."""
        rows, length = self.shape
        kept = like.new_empty(rows * length, like.shape[-1])
        kept.bernoulli_(1 - probability, generator=self.generator).div_(1 - probability)
        return kept if self.inside is None else kept[self.inside]


@dataclass(frozen=True)
class Segment:
    """The tokens of a joined batch that belong to one slot; without ``masks`` outside of training."""

    adapter: SlotAdapter
    tokens: slice
    masks: Masks | None = None
