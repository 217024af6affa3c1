"""The scores that a reward model gives to texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence


def scores(model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the score of each text, given in tokens, in one forward pass without gradient.

    A text is scored at its last token that is not the pad token.
    """
    device, dtype = model.get_input_embeddings().weight.device, model.dtype
    tokens = [torch.tensor(row) for row in rows]
    padding = model.config.get_text_config().pad_token_id
    input_ids = pad_sequence(tokens, batch_first=True, padding_value=padding)
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
    # Types are mixed as by the trainer: the head may be float32 on a base of 16 bits.
    mixed = torch.autocast(device.type, dtype=dtype, enabled=dtype in (torch.bfloat16, torch.float16))
    with torch.no_grad(), mixed:
        output = model(input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False)
    return [float(score) for score in output.logits[:, 0]]
