"""A YAML file and ``dataset_info.json`` for ``llamafactory-cli train``, by the arguments of LLaMA-Factory 0.9.5.

Checked with LLaMA-Factory's own ``get_train_args`` (``tests/export/check_peers.py`` repeats it). The data is finished
text under its ``empty`` template, which adds nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeper.errors import ExportError
from sweeper.export import recipe
from sweeper.export.rows import Renderer, Row, check_row_counts, copy_splits, has_completions
from sweeper.export.source import ExportSource
from sweeper.files.atomic import write_json

TITLE = "LLaMA-Factory recipe that retrains the adapter"
FILE = "llama_factory.yaml"
DATA = "data"
INFO = "dataset_info.json"
CHECKED_WITH = "0.9.5"

CARRIED = {
    name: name
    for name in (
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "label_smoothing_factor",
        "lr_scheduler_kwargs",
        "neftune_noise_alpha",
        "optim",
        "optim_args",
    )
}
"""TRL's fields that are transformers' own, which LLaMA-Factory inherits."""

ATTENTION = {
    "sdpa": "sdpa",
    "eager": "disabled",
    "flash_attention_2": "fa2",
    "flash_attention_3": "fa3",
    "flex_attention": "sdpa",  # LLaMA-Factory lacks it; the same mathematics
}


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Write ``llama_factory.yaml``, ``dataset_info.json`` and the data."""
    recipe.require_trainable(source, "LLaMA-Factory", inits=("pissa",), lora_plus=True)
    carried, notes = recipe.carry(source, CARRIED, "LLaMA-Factory")
    notes += recipe.begun_elsewhere(source)
    values = {
        **_model(source),
        **_data(source, out),
        **_training(source),
        **carried,
        "do_eval": True,
        **recipe.bookkeeping(source, out),
    }
    renderer = Renderer(source)

    def pair(row: Row) -> Row:
        *before, answer = renderer(row)
        if any(part.learned for part in before) or not answer.learned:
            raise ExportError(
                "LLaMA-Factory's finished text has one answer at its end, and the study learned several in a row; "
                "export for TRL or Axolotl, or learn the last (technique.turns: last)"
            )
        return {"prompt": "".join(part.text for part in before), "completion": answer.text}

    copy_splits(source, folder / DATA, pair)
    write_json(folder / DATA / INFO, {split: _entry(split) for split in ("train", "validation")})
    command = f"llamafactory-cli train {out / FILE}"
    recipe.write_yaml(folder / FILE, recipe.heading(source, f"LLaMA-Factory {CHECKED_WITH}", command) + notes, values)
    return [f"train it again: {command}", *notes]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Read the files back and compare them with the source."""
    check_row_counts(source, folder / DATA)
    recipe.compare({**_model(source), **_training(source)}, recipe.read_yaml(folder / FILE), FILE)
    info = json.loads((folder / DATA / INFO).read_text(encoding="utf-8"))
    for split in ("train", "validation"):
        if not (folder / DATA / info[split]["file_name"]).is_file():
            raise ExportError(
                f"the export does not verify: {INFO} names {info[split]['file_name']}, which is not there"
            )
    return []


def _entry(split: str) -> dict[str, Any]:
    columns = {"prompt": "prompt", "response": "completion"}
    return {"file_name": f"{split}.jsonl", "formatting": "alpaca", "columns": columns}


def _model(source: ExportSource) -> dict[str, Any]:
    quantised = source.quantised
    bits = {"nf4": 4, "fp4": 4, "int8": 8}
    values: dict[str, Any] = {
        "model_name_or_path": str(source.base.folder),
        "trust_remote_code": source.spec.model.trust_remote_code,
        "flash_attn": ATTENTION[source.attention],
        "stage": "sft",
        **_adapter(source),
    }
    if quantised is None or quantised.quantization is None:
        return values
    values |= {"quantization_method": "bnb", "quantization_bit": bits[quantised.quantization]}
    if quantised.quantization != "int8":
        values |= {
            "quantization_type": quantised.quantization,
            "double_quantization": quantised.double_quantization,
        }
    return values


def _adapter(source: ExportSource) -> dict[str, Any]:
    hyperparameters, lora = source.hyperparameters, source.lora
    if lora is None:
        return {"finetuning_type": "full"}
    modules = hyperparameters.target_modules
    return {
        "finetuning_type": "lora",
        "lora_rank": hyperparameters.lora_rank,
        "lora_alpha": recipe.whole_number(hyperparameters.lora_alpha, "lora_alpha", "LLaMA-Factory"),
        "lora_dropout": hyperparameters.lora_dropout,
        "lora_target": "all" if modules == "all-linear" else modules if isinstance(modules, str) else ",".join(modules),
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        # -1: the singular vectors themselves, as here, instead of an approximation.
        **({"pissa_init": True, "pissa_iter": -1, "pissa_convert": True} if lora.init == "pissa" else {}),
        **({"loraplus_lr_ratio": lora.lora_plus} if lora.raises_b else {}),
    }


def _data(source: ExportSource, out: Path) -> dict[str, Any]:
    return {"dataset_dir": str(out / DATA), "dataset": "train", "eval_dataset": "validation", "template": "empty"}


def _training(source: ExportSource) -> dict[str, Any]:
    technique = source.supervised
    return {
        "cutoff_len": technique.max_length,
        "packing": technique.packing,
        "neat_packing": technique.packing,
        "train_on_prompt": not technique.completion_only and has_completions(source),
        "do_train": True,
        "disable_gradient_checkpointing": not source.checkpointing,
        **recipe.training(source),
    }
