"""What cannot be packed, and why: such studies run one trial at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sweeper.config.adapter import QLoRA
from sweeper.config.parameters import PARAMETERS
from sweeper.config.space import Choice, Fixed, Range
from sweeper.config.study import StudyConfig
from sweeper.packing.documents import Documents, attending
from sweeper.packing.losses import token_losses
from sweeper.training.base_model import BaseModel
from sweeper.training.tokenised import SHAPE_FIELDS

_FIELDS = {"optim", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", *SHAPE_FIELDS}
"""TRL fields whose meaning a slot carries out."""

_OPTIMIZERS = ("adamw", "adam_", "adafactor", "adagrad", "ademamix", "lion", "paged_", "rmsprop", "sgd", "grokadamw")
"""Beginnings of the names of optimizers that need nothing but parameters; others want the whole model."""

_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")

_LENGTHS = (7, 24, 13)  # of the documents that the base is tried on

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}


def obstacle_in_study(config: StudyConfig, space: Mapping[str, Range]) -> str | None:
    """Return why a study cannot be packed as far as its file tells, or None where it can."""
    if isinstance(config.adapter, QLoRA) and config.adapter.quantization == "int8":
        return "int8 layers look for outliers across all rows of a batch, so trials would change one another"
    if "training_time" in config.evaluation.objectives:
        return "training_time is an objective, and is only a trial's own where nothing trains beside it"
    foreign = sorted(name for name in space if name not in PARAMETERS and name not in _FIELDS)
    if foreign:
        return f"{', '.join(foreign)} belongs to TRL's trainer, which trains one model at a time"
    wanting = [value for value in _values(space.get("optim")) if not str(value).startswith(_OPTIMIZERS)]
    if wanting:
        return f"optim {', '.join(map(str, wanting))} wants the whole model for itself"
    return None


def obstacle_in_base(base: BaseModel) -> str | None:
    """Return why trials cannot share passes over a base model, or None where they can.

    What matters is tried, not looked up in a list of families: the base must say the same of a few documents laid end
    to end as of each in a row of its own.
    """
    model = base.model
    if base.dtype not in _TOLERANCE:
        return f"{str(base.dtype).removeprefix('torch.')} needs a loss scale of each trial's own"
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in _ATTENTION_DROPOUT) or any(
        isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()
    ):
        return "the base model has dropout of its own, whose random numbers trials would share"
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            apart, together = _losses(base)
        except Exception as error:  # a family that is built otherwise may fail in any way
            return f"the base model does not take documents laid end to end ({type(error).__name__}: {error})"
    difference = float((together - apart).abs().mean() / apart.abs().mean())
    if not difference <= _TOLERANCE[base.dtype]:
        return f"the base model says otherwise of documents laid end to end (by {difference:.1%})"
    return None


def _losses(base: BaseModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token losses of a few random documents, in rows of their own and end to end; in training mode."""
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


def _values(range_: Range | None) -> Sequence[object]:
    if isinstance(range_, Choice):
        return range_.choice
    return (range_.value,) if isinstance(range_, Fixed) else ()
