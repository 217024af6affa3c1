"""A YAML file for ``axolotl train``, by the schema of Axolotl 0.19.

Checked with Axolotl's own ``validate_config`` (``tests/export/check_peers.py`` repeats it). The data is of its
``input_output`` type: finished text in segments, each with or without loss, so that no template comes in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.export import recipe
from sweeper.export.rows import Renderer, Row, check_row_counts, copy_splits, has_completions
from sweeper.export.source import ExportSource

TITLE = "Axolotl recipe that retrains the adapter"
FILE = "axolotl.yaml"
DATA = "data"
CHECKED_WITH = "0.19.0"

INITS = ("gaussian", "orthogonal", "pissa", "olora")
"""Initialisations that Axolotl passes on to PEFT, unlike EVA's rows and LoftQ's dense weights."""

CARRIED = {
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "lr_scheduler_kwargs": "lr_scheduler_kwargs",
    "neftune_noise_alpha": "neftune_noise_alpha",
    "optim": "optimizer",
    "optim_args": "optim_args",
}
"""Axolotl's name of each field of TRL that it has."""

RENAMED = {
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
}
"""Axolotl's name of each field that transformers calls something else."""

LEFT_OUT = ("use_cpu", "eval_strategy", "save_strategy", "report_to")
"""Fields of transformers that Axolotl derives from others."""


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Write ``axolotl.yaml`` and its data."""
    recipe.require_trainable(source, "Axolotl", inits=INITS, lora_plus=True)
    carried, notes = recipe.carry(source, CARRIED, "Axolotl")
    notes += recipe.begun_elsewhere(source)
    values = {
        **_model(source),
        **_data(source, out),
        **_training(source),
        **carried,
        **_renamed(recipe.bookkeeping(source, out)),
    }
    renderer = Renderer(source)

    def segments(row: Row) -> Row:
        return {"segments": [{"label": part.learned, "text": part.text} for part in renderer(row)]}

    copy_splits(source, folder / DATA, segments)
    command = f"axolotl train {out / FILE}"
    recipe.write_yaml(folder / FILE, recipe.heading(source, f"Axolotl {CHECKED_WITH}", command) + notes, values)
    return [f"train it again: {command}", *notes, *_remarks(source)]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Read the files back and compare them with the source."""
    check_row_counts(source, folder / DATA)
    recipe.compare({**_model(source), **_training(source)}, recipe.read_yaml(folder / FILE), FILE)
    return []


def _model(source: ExportSource) -> dict[str, Any]:
    quantised = source.quantised
    return {
        "base_model": str(source.base.folder),
        "trust_remote_code": source.spec.model.trust_remote_code,
        "attn_implementation": source.attention,
        "load_in_4bit": source.four_bit,
        "load_in_8bit": quantised is not None and not source.four_bit,
        **(
            {
                "bnb_config_kwargs": {
                    "bnb_4bit_quant_type": quantised.quantization,
                    "bnb_4bit_use_double_quant": quantised.double_quantization,
                }
            }
            if quantised is not None and source.four_bit
            else {}
        ),
        **_adapter(source),
    }


def _adapter(source: ExportSource) -> dict[str, Any]:
    """Return LoRA's fields; without an adapter, Axolotl trains every weight."""
    hyperparameters, lora = source.hyperparameters, source.lora
    if lora is None:
        return {}
    modules = hyperparameters.target_modules
    return {
        # Axolotl calls only the 4-bit kind qlora; 8-bit is lora with load_in_8bit.
        "adapter": "qlora" if source.four_bit else "lora",
        "lora_r": hyperparameters.lora_rank,
        "lora_alpha": recipe.whole_number(hyperparameters.lora_alpha, "lora_alpha", "Axolotl"),
        "lora_dropout": hyperparameters.lora_dropout,
        **({"lora_target_linear": True} if modules == "all-linear" else {"lora_target_modules": _names(modules)}),
        "peft_use_rslora": lora.rslora,
        "peft_use_dora": lora.dora,
        **({} if lora.init == "default" else {"peft_init_lora_weights": lora.init}),
        **({"loraplus_lr_ratio": lora.lora_plus} if lora.raises_b else {}),
    }


def _remarks(source: ExportSource) -> list[str]:
    if not source.spec.adapter.changes_base:
        return []
    return ["Axolotl's adapter will belong to a base changed by its initialisation; sweeper's fits the base as it is"]


def _names(modules: str | tuple[str, ...]) -> str | list[str]:
    return modules if isinstance(modules, str) else list(modules)


def _data(source: ExportSource, out: Path) -> dict[str, Any]:
    def entry(split: str) -> dict[str, str]:
        return {"path": str(out / DATA / f"{split}.jsonl"), "ds_type": "json", "split": "train", "type": "input_output"}

    return {
        "datasets": [entry("train")],
        "test_datasets": [entry("validation")],
        "dataset_prepared_path": str(out / "prepared"),
    }


def _training(source: ExportSource) -> dict[str, Any]:
    technique = source.supervised
    return {
        "sequence_len": technique.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": technique.packing,
        "eval_sample_packing": technique.packing,
        "train_on_inputs": not technique.completion_only and has_completions(source),
        **_renamed(recipe.training(source)),
        "optimizer": source.hyperparameters.trl.get("optim", "adamw_torch_fused"),
        "gradient_checkpointing": source.checkpointing,
    }


def _renamed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in fields.items() if name not in LEFT_OUT}
