"""Dense weights whose outputs match base plus adapter.

An adapter trained on a quantised base fits that base, so it is merged into the *dequantised* base: merging into the
quantised one would round the result again, and the original dense weights are not what the adapter was trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sweeper.config.adapter import QuantisedBase
from sweeper.errors import ExportError
from sweeper.export import whole
from sweeper.export.card import check_private, write_card
from sweeper.export.rows import Renderer, load_tokenizer, read_rows
from sweeper.export.source import ExportSource

TITLE = "Base model and adapter merged into dense weights"
PROMPTS = 4
PROMPT_TOKENS = 128
TOLERANCE = 0.05
"""Largest error allowed in a logit, as a fraction of the adapter's largest effect on one."""

FLOOR = 1e-4
"""Errors below this fraction of the largest logit are rounding, whatever the adapter's effect."""


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of the merged weights, in logits over a few validation prompts, computed in float32.

    Attributes:
        error: Largest absolute difference to base plus adapter.
        effect: Largest absolute difference due to the adapter.
        scale: Largest absolute logit.
        agreement: Fraction of positions with the same most likely token.
    """

    error: float
    effect: float
    scale: float
    agreement: float

    @property
    def allowed(self) -> float:
        """The largest error that passes."""
        return max(TOLERANCE * self.effect, FLOOR * self.scale)

    @property
    def good(self) -> bool:
        """Whether the error passes; never if a value is not finite."""
        return self.error <= self.allowed


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Merge in float32; save in bfloat16 if the rounded weights pass the check, else in float32."""
    adapter = source.spec.adapter
    if adapter.is_full:
        return whole.write(source, folder, out)
    if adapter.is_prompt_learning:
        raise ExportError(
            f"adapter {adapter.kind} cannot be merged: its virtual tokens stand before the input, and no layer's "
            "weights have a place for them; use --format adapter, which plain PEFT loads onto the base"
        )
    tokenizer = load_tokenizer(source)
    batches = _prompts(source, tokenizer)
    for dtype in ("float32",) if source.dtype == "float32" else ("bfloat16", "float32"):
        plain, reference = _merge(source, folder, dtype, batches)
        merged = source.loader_class().from_pretrained(folder, dtype="float32").eval()
        fidelity = _compare(plain, reference, _logits(merged, batches))
        if fidelity.good:
            break
    else:
        raise ExportError(f"the export does not verify: the merged weights differ from base plus adapter: {fidelity}")
    tokenizer.save_pretrained(folder)
    remarks = [_which_base(source), f"The weights are saved in {dtype}. {_measured(source, fidelity)}"]
    write_card(source, folder, "merged", whole.loading_code(source, dtype), remarks)
    return [f"load it with transformers from {out}, saved in {dtype}", _which_base(source), _measured(source, fidelity)]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Check that the weights are dense and finite, and the tokenizer is the base's; ``write`` measured the outputs."""
    if source.spec.adapter.is_full:
        return whole.verify(source, folder)
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    check_private(source, folder)
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise ExportError("the export does not verify: config.json still names a quantisation")
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ExportError(f"the export does not verify: {name} in {file.name} is not dense and finite")
    ours, theirs = AutoTokenizer.from_pretrained(folder), load_tokenizer(source)
    if ours.chat_template != theirs.chat_template or ours.get_vocab() != theirs.get_vocab():
        raise ExportError("the export does not verify: its tokenizer or chat template is not the base's")
    return []


def _merge(source: ExportSource, folder: Path, dtype: str, batches: list[Any]) -> tuple[list[Any], list[Any]]:
    """Save merged weights in ``dtype``; return the logits of the base, and of base plus adapter."""
    import torch

    from sweeper.training.base_model import take_off

    quantised = source.quantised
    base = _load_base(source)
    if quantised is None or quantised.quantization == "int8":
        # LLM.int8 rounds the activations too, so no dense weights give its outputs: compare on its dequantised base.
        base = _dense(base, quantised)
    else:
        _compute_in_float32(base)
    plain = _logits(base, batches)
    model = _attach(source, base)
    reference = _logits(model, batches)
    if quantised is not None and quantised.quantization != "int8":
        take_off(base)
        model = _attach(source, _dense(base, quantised))
    try:
        merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    except ValueError as error:
        raise ExportError(f"the adapter cannot be merged: {error}") from error
    merged.config.dtype = getattr(torch, dtype)
    merged.save_pretrained(folder)
    return plain, reference


def _load_base(source: ExportSource) -> Any:
    """Return the base in the trial's dtype and quantisation, on the CPU if there is no GPU."""
    import torch

    from sweeper.training.base_model import load_base

    config = source.spec.model.model_copy(update={"dtype": source.dtype, "attention": "auto"})
    device = source.spec.device if torch.cuda.is_available() else "cpu"
    if device == "cpu" and source.dtype == "float16":
        raise ExportError("the trial computed in float16 on a GPU; merge it on a machine with a GPU")
    return load_base(source.base.folder, config, source.spec.adapter, device, source.spec.technique.head).model


def _dense(base: Any, quantised: QuantisedBase | None) -> Any:
    if quantised is None:
        return base.float()
    dense = base.dequantize().float()
    dense.is_loaded_in_4bit = dense.is_loaded_in_8bit = False  # transformers 5.23 leaves these set, and PEFT reads them
    return dense


def _compute_in_float32(model: Any) -> None:
    """Let a 4-bit model compute in float32 on the same weights, so that the comparison adds no rounding."""
    import torch
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.float32
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.dtype in (torch.bfloat16, torch.float16):
                tensor.data = tensor.data.float()


def _attach(source: ExportSource, base: Any) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(source.adapter_folder)).eval()


def _prompts(source: ExportSource, tokenizer: Any) -> list[Any]:
    """Return the token ids of a few validation rows, each of shape (1, at most ``PROMPT_TOKENS``)."""
    renderer = Renderer(source, tokenizer)
    texts = ("".join(part.text for part in renderer(row)) for row in islice(read_rows(source.validation.path), PROMPTS))
    options = {"add_special_tokens": False, "return_tensors": "pt", "truncation": True, "max_length": PROMPT_TOKENS}
    return [tokenizer(text, **options)["input_ids"] for text in texts]


def _logits(model: Any, batches: list[Any]) -> list[Any]:
    """Return the logits of each prompt on the CPU: of shape (tokens, vocabulary), or (1, 1) for a score."""
    import torch

    with torch.no_grad():
        return [model(input_ids=ids.to(model.device)).logits.flatten(0, -2).float().cpu() for ids in batches]


def _compare(plain: list[Any], reference: list[Any], merged: list[Any]) -> Fidelity:
    def largest(left: list[Any], right: list[Any]) -> float:
        return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))

    same = [(a.argmax(-1) == b.argmax(-1)).float() for a, b in zip(merged, reference, strict=True)]
    return Fidelity(
        error=largest(merged, reference),
        effect=largest(reference, plain),
        scale=max(float(logits.abs().max()) for logits in reference),
        agreement=float(sum(part.sum() for part in same) / sum(len(part) for part in same)),
    )


def _which_base(source: ExportSource) -> str:
    quantised = source.quantised
    if quantised is None:
        return "The adapter is merged into the base's own dense weights, which it was trained on."
    return (
        f"The adapter was trained on the base quantised to {quantised.quantization}, and is merged into that base "
        "dequantised, not into the original dense weights: this keeps the outputs that were scored."
    )


def _measured(source: ExportSource, fidelity: Fidelity) -> str:
    what = "scores" if source.is_reward_model else "logits"
    same = (
        ""
        if source.is_reward_model
        else f"; the most likely token is the same at {fidelity.agreement:.1%} of the positions"
    )
    return (
        f"Checked by loading them again and comparing {what} with base plus adapter on validation rows, in float32: "
        f"largest difference {fidelity.error:.2g}, where the adapter itself changes {what} by up to "
        f"{fidelity.effect:.2g}{same}."
    )
