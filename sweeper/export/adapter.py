"""The PEFT adapter with a model card, ready to be published."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from sweeper.errors import ExportError
from sweeper.export import whole
from sweeper.export.card import check_private, write_card
from sweeper.export.source import ExportSource
from sweeper.files.atomic import read_json, write_json

TITLE = "PEFT adapter with its model card"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Copy the adapter and write its card."""
    if source.spec.adapter.is_full:
        return whole.write(source, folder, out)
    copy_adapter(source, folder)
    write_card(source, folder, "adapter", _loading(source), remarks(source))
    return [f"load it on {source.base.public_name} with peft.PeftModel.from_pretrained(base, {str(out)!r})"]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Load it with plain PEFT on an empty base of the right shape, and compare every tensor."""
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


def copy_adapter(source: ExportSource, folder: Path) -> dict[str, Any]:
    """Copy the weights, and write and return the configuration, which names the base as other machines know it."""
    for name in (CONFIG, WEIGHTS):
        if not (source.adapter_folder / name).is_file():
            raise ExportError(f"{source.adapter_folder} has no {name}; the registered adapter is damaged")
    shutil.copyfile(source.adapter_folder / WEIGHTS, folder / WEIGHTS)
    config = read_json(source.adapter_folder / CONFIG)
    if not isinstance(config, dict):
        raise ExportError(f"{source.adapter_folder / CONFIG} is not a mapping; the registered adapter is damaged")
    config |= {"base_model_name_or_path": source.base.public_name, "revision": source.base.revision}
    if "tokenizer_name_or_path" in config:  # only needed to begin a prompt from a text, and this one is trained
        config |= {"tokenizer_name_or_path": None, "prompt_tuning_init_text": None, "prompt_tuning_init": "RANDOM"}
    write_json(folder / CONFIG, config)
    return config


def _load_on_shape(source: ExportSource, folder: Path) -> dict[str, Any]:
    """Return the adapter's tensors as PEFT loads them, by name."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoConfig

    remote = source.spec.model.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(
            source.base.folder, trust_remote_code=remote, **({"num_labels": 1} if source.is_reward_model else {})
        )
        with torch.device("meta"):
            base = source.loader_class().from_config(config, trust_remote_code=remote, dtype=torch.float32)
        # Untouched memory is never allocated, so this costs little however large the base is.
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


def remarks(source: ExportSource) -> list[str]:
    """Return a paragraph for the card if the base is on no hub."""
    if source.base.hub_id:
        return []
    return [
        f"`{source.base.public_name}` is only the name of the base, which was a local folder. Load the base yourself, "
        "compare its fingerprint (below), and attach the adapter to it."
    ]


def _loading(source: ExportSource) -> str:
    quantised = source.quantised
    name = source.base.public_name
    imports, extra = f"{source.loader}, AutoTokenizer", ", num_labels=1" if source.is_reward_model else ""
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
            f'base = {source.loader}.from_pretrained("{name}", dtype=torch.{source.dtype}{extra})',
            f'model = PeftModel.from_pretrained(base, "{source.adapter_name}")  # this folder',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            *_scoring(source),
            "",
        ]
    )


def _scoring(source: ExportSource) -> list[str]:
    """Return code that scores a text with a reward model; no file of the base names its padding token."""
    if not source.is_reward_model:
        return []
    return [
        "model.config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id",
        'score = model(**tokenizer(prompt + answer + tokenizer.eos_token, return_tensors="pt")).logits[0, 0]',
    ]


def _quantization_code(source: ExportSource) -> str:
    quantised = source.quantised
    if quantised is None or quantised.quantization == "int8":
        dense_head = ', llm_int8_skip_modules=["score"]' if source.is_reward_model else ""
        return f"BitsAndBytesConfig(load_in_8bit=True{dense_head})"
    dense_head = '    llm_int8_skip_modules=["score"],\n' if source.is_reward_model else ""
    return (
        f"BitsAndBytesConfig(\n    load_in_4bit=True,\n{dense_head}"
        f'    bnb_4bit_quant_type="{quantised.quantization}",\n'
        f"    bnb_4bit_use_double_quant={quantised.double_quantization},\n"
        f"    bnb_4bit_compute_dtype=torch.{source.dtype},\n)"
    )
