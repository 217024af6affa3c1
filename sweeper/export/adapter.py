"""The PEFT adapter with a model card, ready to be published."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from sweeper.errors import ExportError
from sweeper.export import whole
from sweeper.export.card import check_private, model_card, write_card
from sweeper.export.heads import class_name, head_arguments, model_class, scores
from sweeper.export.source import ExportSource
from sweeper.files.atomic import write_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Copy the weights, write the configuration with a portable base, and the card."""
    if source.spec.adapter.is_full:
        return whole.write(source, folder, out)
    for name in (CONFIG, WEIGHTS):
        if not (source.adapter_folder / name).is_file():
            raise ExportError(f"{source.adapter_folder} has no {name}; the registered adapter is damaged")
    shutil.copyfile(source.adapter_folder / WEIGHTS, folder / WEIGHTS)
    write_json(folder / CONFIG, _portable_config(source))
    write_card(source, folder, model_card(source, "adapter", _loading(source), _remarks(source)))
    return [f"load it on {source.base.public_name} with peft.PeftModel.from_pretrained(base, {str(out)!r})"]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Load it with plain PEFT on a base of the right shape, without its weights, and compare every tensor."""
    if source.spec.adapter.is_full:
        return whole.verify(source, folder)
    from safetensors.torch import load_file

    check_private(source, folder)
    loaded = _load_on_shape(source, folder)
    written, original = load_file(folder / WEIGHTS), load_file(source.adapter_folder / WEIGHTS)
    if set(written) != set(original) or set(written) != set(loaded):
        odd = sorted(set(written) ^ set(loaded)) or sorted(set(written) ^ set(original))
        raise ExportError(f"the export does not verify: the adapter and the base do not fit, first at {odd[0]}")
    for name, tensor in written.items():
        if not tensor.isfinite().all():
            raise ExportError(f"the adapter has values in {name} that are not finite; it cannot be used")
        if not tensor.equal(original[name]) or not tensor.to(loaded[name].dtype).equal(loaded[name]):
            raise ExportError(f"the export does not verify: {name} is not what the registry holds")
    return [f"verified: {len(written)} tensors load with plain PEFT on the base's shape, equal to the registered ones"]


def _load_on_shape(source: ExportSource, folder: Path) -> dict[str, Any]:
    """Return the adapter's tensors as PEFT loads them, by their names in the file."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoConfig

    remote = source.spec.model.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(source.base.folder, trust_remote_code=remote, **head_arguments(source))
        with torch.device("meta"):
            base = model_class(source).from_config(config, trust_remote_code=remote, dtype=torch.float32)
        # Memory that is never touched is never taken, so this costs little however large the base is.
        base = base.to_empty(device="cpu")
        with warnings.catch_warnings(action="ignore"):  # PEFT only warns of missing keys; the caller compares them
            model = PeftModel.from_pretrained(base, str(folder), low_cpu_mem_usage=True, torch_device="cpu")
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"the export does not verify: PEFT cannot load it on the base: {error}") from error
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing = [name for name, tensor in state.items() if tensor.is_meta]
    if missing:
        raise ExportError(f"the export does not verify: the adapter has no weights for {missing[0]}")
    return dict(state)


def _portable_config(source: ExportSource) -> dict[str, Any]:
    config = json.loads((source.adapter_folder / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ExportError(f"{source.adapter_folder / CONFIG} is not a mapping; the registered adapter is damaged")
    portable = {"base_model_name_or_path": source.base.public_name, "revision": source.base.revision}
    if "tokenizer_name_or_path" in config:  # where a prompt began from a text; trained, it needs neither any more
        portable |= {"tokenizer_name_or_path": None, "prompt_tuning_init_text": None, "prompt_tuning_init": "RANDOM"}
    return {**config, **portable}


def _remarks(source: ExportSource) -> list[str]:
    if source.base.hub_id:
        return []
    return [
        f"`{source.base.public_name}` is the name of the base, not a place to fetch it from: it was a local folder. "
        "Load the base yourself, compare its fingerprint (below), and attach the adapter to it."
    ]


def _loading(source: ExportSource) -> str:
    quantised = source.quantised
    name = source.base.public_name
    imports, extra = f"{class_name(source)}, AutoTokenizer", ", num_labels=1" if scores(source) else ""
    lines = []
    if quantised is not None:
        imports, extra = f"{imports}, BitsAndBytesConfig", f"{extra}, quantization_config=quantization"
        lines = [f"quantization = {_quantization_code(source)}"]
    return "\n".join(
        [
            "import torch",
            "from peft import PeftModel",
            f"from transformers import {imports}",
            "",
            *lines,
            f'base = {class_name(source)}.from_pretrained("{name}", dtype=torch.{source.dtype}{extra})',
            f'model = PeftModel.from_pretrained(base, "{source.adapter_name}")  # this folder',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            *_scoring(source),
            "",
        ]
    )


def _scoring(source: ExportSource) -> list[str]:
    """Return how a reward model scores a text; the padding has to be named, as it is in no file of the base."""
    if not scores(source):
        return []
    return [
        "model.config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id",
        'score = model(**tokenizer(prompt + answer + tokenizer.eos_token, return_tensors="pt")).logits[0, 0]',
    ]


def _quantization_code(source: ExportSource) -> str:
    quantised = source.quantised
    if quantised is None or quantised.quantization == "int8":
        dense_head = ', llm_int8_skip_modules=["score"]' if scores(source) else ""
        return f"BitsAndBytesConfig(load_in_8bit=True{dense_head})"
    dense_head = '    llm_int8_skip_modules=["score"],\n' if scores(source) else ""
    return (
        f"BitsAndBytesConfig(\n    load_in_4bit=True,\n{dense_head}"
        f'    bnb_4bit_quant_type="{quantised.quantization}",\n'
        f"    bnb_4bit_use_double_quant={quantised.double_quantization},\n"
        f"    bnb_4bit_compute_dtype=torch.{source.dtype},\n)"
    )
