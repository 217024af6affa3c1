"""A trial pass that shows whether trials can share passes over a base model."""

from __future__ import annotations

import torch

from sweeper.packing.documents import Documents, attending
from sweeper.packing.losses import token_losses
from sweeper.training.base_model import BaseModel

_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")

_LENGTHS = (7, 24, 13)  # of the documents that the base is tried on

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}


def obstacle_in_base(base: BaseModel) -> str | None:
    """Return why trials cannot share passes over a base model, or None if they can.

    There is no list of model families: the base must give a few concatenated documents the same losses as each alone.
    """
    model = base.model
    if base.dtype not in _TOLERANCE:
        return f"{str(base.dtype).removeprefix('torch.')} needs a separate loss scale for each trial"
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in _ATTENTION_DROPOUT) or any(
        isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()
    ):
        return "the base model has its own dropout, whose random numbers trials would share"
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            apart, together = _losses(base)
        except Exception as error:  # a family that is built otherwise may fail in any way
            return f"the base model does not take concatenated documents ({type(error).__name__}: {error})"
    difference = float((together - apart).abs().mean() / apart.abs().mean())
    if not difference <= _TOLERANCE[base.dtype]:
        return f"the base model gives concatenated documents other losses (by {difference:.1%})"
    return None


def _losses(base: BaseModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token losses of a few random documents, apart and concatenated; in training mode."""
    model, device = base.model, torch.device(base.device)
    random = torch.Generator().manual_seed(0)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    documents = [torch.randint(vocabulary, (length,), generator=random).to(device) for length in _LENGTHS]
    joined = torch.cat(documents)
    layout = Documents(_LENGTHS, device)
    predicting = torch.cat(
        [torch.arange(start, start + length - 1) for start, length in zip(layout.starts, _LENGTHS, strict=True)]
    ).to(device)
    targets = joined[predicting + 1]
    model.train()
    try:
        rows = [model(input_ids=ids[None], use_cache=False).logits[0, :-1].float() for ids in documents]
        apart = torch.nn.functional.cross_entropy(torch.cat(rows), targets, reduction="none")
        with attending(model, layout):
            hidden = model.base_model(
                input_ids=joined[None], position_ids=layout.positions[None], use_cache=False
            ).last_hidden_state[0]
        return apart, token_losses(hidden[predicting], model.get_output_embeddings(), targets)
    finally:
        model.eval()
