"""A YAML file that ``trl sft --config`` runs as it is (TRL 1.16).

Its keys are the fields of TRL's ``ScriptArguments``, ``SFTConfig`` and ``ModelConfig``. The data is named as a folder
with one file a split, not under ``datasets:``, because TRL takes an evaluation split only from the former.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sweeper.config.backend import TRL
from sweeper.errors import ExportError
from sweeper.export.recipe import bookkeeping, compare, heading, number, write_yaml
from sweeper.export.rows import check_row_counts, copy_splits, has_completions, shape_of
from sweeper.export.source import ExportSource

FILE = "trl.yaml"
DATA = "data"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Write ``trl.yaml`` and its data."""
    reshaped = shape_of(source.train.path) == "messages" and has_completions(source)
    copy_splits(source, folder / DATA, dict if reshaped else None)
    command = f"trl sft --config {out / FILE}"
    write_yaml(folder / FILE, heading(source, "TRL 1.16", command) + _remarks(source), _values(source, out))
    return [f"train it again: {command}"]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Read the file with TRL's own parser, as ``trl sft`` does, and compare what it means."""
    check_row_counts(source, folder / DATA)
    script, training, model = _parse(folder / FILE)
    wanted = {**_hyperparameters(source), **_model(source), "dataset_train_split": "train"}
    found = {**vars(script), **vars(training), **vars(model)}
    compare(wanted, {key: _plain(found.get(key)) for key in wanted}, FILE)
    return []


def _values(source: ExportSource, out: Path) -> dict[str, Any]:
    return {
        **_model(source),
        "dataset_name": str(out / DATA),
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        **_hyperparameters(source),
        **bookkeeping(source, out),
    }


def _model(source: ExportSource) -> dict[str, Any]:
    """Return the fields of TRL's ``ModelConfig``."""
    hyperparameters, quantised = source.hyperparameters, source.quantised
    modules = hyperparameters.target_modules
    return {
        "model_name_or_path": str(source.base.folder),
        "dtype": source.dtype,
        "attn_implementation": source.attention,
        "use_peft": True,
        "lora_r": hyperparameters.lora_rank,
        "lora_alpha": number(hyperparameters.lora_alpha),
        "lora_dropout": hyperparameters.lora_dropout,
        "lora_target_modules": _target_modules(modules),
        "use_rslora": source.spec.adapter.rslora,
        "load_in_8bit": quantised is not None and not source.four_bit,
        "load_in_4bit": source.four_bit,
        **(
            {"bnb_4bit_quant_type": quantised.quantization, "use_bnb_nested_quant": quantised.double_quantization}
            if quantised is not None and source.four_bit
            else {}
        ),
    }


def _target_modules(modules: str | tuple[str, ...]) -> str | list[str]:
    """Return a list, or a pattern: TRL makes a string of a list of one, which PEFT matches with the whole path."""
    if isinstance(modules, str):
        return modules
    return list(modules) if len(modules) > 1 else rf"(.*\.)?{re.escape(modules[0])}"


def _hyperparameters(source: ExportSource) -> dict[str, Any]:
    """Return the fields of TRL's ``SFTConfig`` that decide what is learned."""
    hyperparameters, technique = source.hyperparameters, source.spec.technique
    warmup = hyperparameters.warmup_steps
    return {
        "learning_rate": hyperparameters.learning_rate,
        "per_device_train_batch_size": source.rows_per_pass,
        "gradient_accumulation_steps": source.accumulation,
        "num_train_epochs": hyperparameters.epochs,
        "warmup_steps": warmup if warmup is not None else (hyperparameters.warmup_ratio or 0),
        "lr_scheduler_type": hyperparameters.lr_scheduler,
        "weight_decay": hyperparameters.weight_decay,
        "max_grad_norm": hyperparameters.max_grad_norm,
        "max_length": technique.max_length,
        "packing": technique.packing,
        "eval_packing": False,
        "completion_only_loss": _completion_only(source),
        "activation_checkpointing": source.checkpointing,
        "bf16": source.dtype == "bfloat16",
        "fp16": source.dtype == "float16",
        "seed": source.spec.seed,
        "trust_remote_code": source.spec.model.trust_remote_code,
        **_backend(source),
        **source.hyperparameters.trl,
    }


def _backend(source: ExportSource) -> dict[str, Any]:
    """Return what the study added to TRL's trainer; processes that share a trial change nothing in what is learned."""
    backend = source.spec.backend
    if not isinstance(backend, TRL) or backend.is_plain:
        return {}
    return {"use_liger_kernel": backend.liger, "torch_compile": backend.compile}


def _completion_only(source: ExportSource) -> bool | None:
    """Return None where there is no completion: TRL ignores the field there, or refuses it."""
    return source.spec.technique.completion_only if has_completions(source) else None


def _remarks(source: ExportSource) -> list[str]:
    metric = source.spec.evaluation.metric
    remarks = ["The adapter of the best evaluation is kept in trained/ at the end."]
    if metric not in ("eval_loss", "perplexity"):
        remarks.append(f"TRL picks it by eval_loss; the study picked by {metric}, which TRL cannot measure.")
    if source.on_cpu and source.four_bit:
        remarks.append(
            "It evaluates at the end only: bitsandbytes 0.50 spoils 4-bit training on some CPUs by evaluating."
        )
    if source.quantised is not None and source.dtype == "float32":
        remarks.append("TRL keeps the adapter of a quantised base in bfloat16, where the study kept float32.")
    return remarks


def _parse(file: Path) -> tuple[Any, Any, Any]:
    """Parse as ``trl sft`` does; on the CPU, because the machine that exports need not be the one that trains."""
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig), prog="trl sft")
    try:
        script, training, model, _ = parser.parse_args_and_config(["--config", str(file), "--use_cpu", "true"])
    except (SystemExit, ValueError, TypeError) as error:
        raise ExportError(f"the export does not verify: TRL refuses {file.name}: {error}") from error
    return script, training, model


def _plain(value: Any) -> Any:
    """Return an enumeration's value, and anything else as it is."""
    return getattr(value, "value", value)
