"""The common part of all training files: their fields, comments, writing and checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import ExportError
from sweeper.export.source import ExportSource


def write_yaml(path: Path, comments: list[str], values: Mapping[str, Any]) -> None:
    """Write ``values`` in their order, below ``comments``, without those that are None (the tool's default)."""
    head = "".join(f"# {line}\n" if line else "#\n" for text in comments for line in text.split("\n"))
    body = yaml.safe_dump(
        {key: value for key, value in values.items() if value is not None}, sort_keys=False, allow_unicode=True
    )
    path.write_text(f"{head}\n{body}", encoding="utf-8")


def heading(source: ExportSource, tool: str, command: str) -> list[str]:
    """Return the comments on top of a training file."""
    return [
        f"Trains {source.adapter_name} version {source.version} again with {tool}.",
        f"Found by sweeper {source.sweeper_version} in the study {source.study}: trial {source.spec.number}, "
        f"{source.search}.",
        "",
        f"    {command}",
        "",
        f"{source.steps} optimizer steps of {source.accumulation} x {source.rows_per_pass} rows.",
        "Paths are absolute, so the command works from any folder; after moving this folder or the base model to",
        "another place or machine, change them.",
    ]


def begun_elsewhere(source: ExportSource) -> list[str]:
    """Return a note if the version did not start from the base model, as a recipe does."""
    initial = source.spec.initial_trial
    if initial is None:
        return []
    return [
        f"the recipe begins at the base model, and this version began from the weights of trial {initial}: "
        "it does not train the same again"
    ]


def require_trainable(source: ExportSource, tool: str, *, inits: Collection[str], lora_plus: bool) -> None:
    """Refuse a winner whose adapter a tool cannot train; ``inits`` are the tool's, besides LoRA's default.

    Raises:
        ExportError: Naming what the tool lacks.
    """
    lora, kind = source.lora, source.spec.adapter.kind
    missing = None
    if lora is None and not source.spec.adapter.is_full:
        missing = f"adapter {kind}"
    elif lora is not None and lora.init not in ("default", *inits):
        missing = f"init {lora.init} of LoRA"
    elif lora is not None and lora.raises_b and not lora_plus:
        missing = "lora_plus"
    if missing is not None:
        raise ExportError(
            f"{tool} has no {missing}, so it cannot train this winner again; export the trained weights with "
            "--format adapter, which plain PEFT loads"
        )


def whole_number(value: float, name: str, tool: str) -> int:
    """Return ``value`` as an int.

    Raises:
        ExportError: If it is not whole.
    """
    if value != int(value):
        raise ExportError(
            f"{tool} takes a whole number for {name}, and the winner's is {value:g}; export to trl instead"
        )
    return int(value)


def number(value: float) -> int | float:
    """Return a whole number as an int, for files that people read."""
    return int(value) if value == int(value) else value


def carry(source: ExportSource, names: Mapping[str, str], tool: str) -> tuple[dict[str, Any], list[str]]:
    """Return the winner's further TRL fields under the tool's ``names``, and a note for each that it does not have."""
    further = source.hyperparameters.trl
    carried = {names[name]: value for name, value in further.items() if name in names}
    left = sorted(set(further) - set(names))
    return carried, [f"{tool} has no field for {name} = {further[name]!r}; it is left out" for name in left]


def compare(expected: Mapping[str, Any], found: Mapping[str, Any], file: str) -> None:
    """Compare the fields of a written file with the source's.

    Raises:
        ExportError: Naming each field that differs.
    """
    wrong = [
        f"{key} is {found.get(key)!r}, should be {value!r}"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if wrong:
        raise ExportError(f"the export does not verify: in {file}, {'; '.join(wrong)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ExportError: If it is not a mapping.
    """
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ExportError(f"the export does not verify: {path.name} is not a mapping")
    return value


def training(source: ExportSource) -> dict[str, Any]:
    """Return the hyperparameters that every tool has, by their names in transformers."""
    hyperparameters = source.hyperparameters
    return {
        "learning_rate": hyperparameters.learning_rate,
        "per_device_train_batch_size": source.rows_per_pass,
        "gradient_accumulation_steps": source.accumulation,
        "num_train_epochs": hyperparameters.epochs,
        "warmup_steps": source.warmup_steps,
        "lr_scheduler_type": hyperparameters.lr_scheduler,
        "weight_decay": hyperparameters.weight_decay,
        "max_grad_norm": hyperparameters.max_grad_norm,
        "bf16": source.dtype == "bfloat16",
        "fp16": source.dtype == "float16",
        "seed": source.spec.seed,
    }


def bookkeeping(source: ExportSource, out: Path) -> dict[str, Any]:
    """Return the fields by which transformers' trainer evaluates and keeps the best adapter in ``trained/``."""
    return {
        "use_cpu": source.on_cpu,
        "per_device_eval_batch_size": source.rows_per_pass,
        "eval_strategy": "steps",
        "eval_steps": source.evaluation_steps,
        "save_strategy": "steps",
        "save_steps": source.evaluation_steps,
        "save_total_limit": 1,
        "save_only_model": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": 1,
        "report_to": "none",
        "output_dir": str(out / "trained"),
    }
