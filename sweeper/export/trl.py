"""A YAML file that TRL 1.16's commands run as it is: ``trl sft``, ``dpo``, ``kto``, ``reward``, ``grpo``, ``rloo``.

Its keys are the fields of TRL's ``ScriptArguments``, ``ModelConfig`` and the technique's own config. The data is named
as a folder with one file a split, not under ``datasets:``, because TRL takes an evaluation split only from the former.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from sweeper.config.backend import TRL
from sweeper.config.evaluation import LOSSES
from sweeper.config.technique import SFT, Policy, Technique
from sweeper.errors import ExportError
from sweeper.export.heads import scores
from sweeper.export.recipe import begun_elsewhere, bookkeeping, compare, heading, number, require_trainable, write_yaml
from sweeper.export.rows import check_row_counts, copy_splits, has_completions, shape_of
from sweeper.export.source import ExportSource
from sweeper.export.trl_quantisation import dtype, quantisation
from sweeper.export.trl_rewards import (
    config_fields,
    evaluation_fields,
    is_policy,
    remarks,
    script_fields,
    write_rewards,
)

FILE = "trl.yaml"
DATA = "data"


def write(source: ExportSource, folder: Path, out: Path) -> list[str]:
    """Write ``trl.yaml`` and its data."""
    require_trainable(source, "TRL's command line", inits=(), lora_plus=False)
    kind = _kind(source)
    reshaped = kind == "sft" and shape_of(source.train.path) == "messages" and has_completions(source)
    copy_splits(source, folder / DATA, dict if reshaped else None)
    command = f"trl {kind} --config {out / FILE}"
    if is_policy(source):
        write_rewards(source, folder)
        command = f"cd {out} && trl {kind} --config {FILE}"
    notes = begun_elsewhere(source)
    write_yaml(folder / FILE, heading(source, "TRL 1.16", command) + notes + _remarks(source), _values(source, out))
    return [f"train it again: {command}", *notes, *(remarks(source) if is_policy(source) else [])]


def verify(source: ExportSource, folder: Path) -> list[str]:
    """Read the file with TRL's own parser, as its command line does, and compare what it means."""
    check_row_counts(source, folder / DATA)
    script, training, model = _parse(source.spec.technique, folder / FILE)
    chosen = script_fields(source) if is_policy(source) else {}
    wanted = {**chosen, **_hyperparameters(source), **_model(source), "dataset_train_split": "train"}
    found = {**vars(script), **vars(training), **vars(model)}
    compare(wanted, {key: _plain(found.get(key)) for key in wanted}, FILE)
    return []


def _kind(source: ExportSource) -> str:
    technique = source.spec.technique
    if not technique.trl_command:
        raise ExportError(
            f"TRL's command line has no {technique.kind}; export the winner as adapter or merged, or train it again "
            "with sweeper"
        )
    return technique.kind


def _values(source: ExportSource, out: Path) -> dict[str, Any]:
    return {
        **_model(source),
        "dataset_name": str(out / DATA),
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        **_hyperparameters(source),
        **bookkeeping(source, out),
        **({**script_fields(source), **evaluation_fields(source)} if is_policy(source) else {}),
    }


def _model(source: ExportSource) -> dict[str, Any]:
    """Return the fields of TRL's ``ModelConfig``."""
    return {
        "model_name_or_path": str(source.base.folder),
        # Weights that are trained themselves stay in float32, whatever the products are computed in.
        "dtype": "float32" if source.spec.adapter.is_full else dtype(source),
        "attn_implementation": source.attention,
        **_adapter(source),
        **quantisation(source),
    }


def _adapter(source: ExportSource) -> dict[str, Any]:
    hyperparameters, lora = source.hyperparameters, source.lora
    if lora is None:
        return {"use_peft": False}
    return {
        "use_peft": True,
        "lora_r": hyperparameters.lora_rank,
        "lora_alpha": number(hyperparameters.lora_alpha),
        "lora_dropout": hyperparameters.lora_dropout,
        "lora_target_modules": _target_modules(hyperparameters.target_modules),
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        **({"lora_task_type": "SEQ_CLS", "lora_modules_to_save": ["score"]} if scores(source) else {}),
    }


def _target_modules(modules: str | tuple[str, ...]) -> str | list[str]:
    """Return a list, or a pattern: TRL makes a string of a list of one, which PEFT matches with the whole path."""
    if isinstance(modules, str):
        return modules
    return list(modules) if len(modules) > 1 else rf"(.*\.)?{re.escape(modules[0])}"


def _hyperparameters(source: ExportSource) -> dict[str, Any]:
    """Return the fields of the technique's config that decide what is learned."""
    hyperparameters = source.hyperparameters
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
        **_technique(source),
        "activation_checkpointing": source.checkpointing,
        "bf16": dtype(source) == "bfloat16",
        "fp16": source.dtype == "float16",
        "seed": source.spec.seed,
        "trust_remote_code": source.spec.model.trust_remote_code,
        **_backend(source),
        **{name: _listed(name, value) for name, value in hyperparameters.trl.items()},
    }


def _backend(source: ExportSource) -> dict[str, Any]:
    """Return what the study added to TRL's trainer; processes that share a trial change nothing in what is learned."""
    backend = source.spec.backend
    if not isinstance(backend, TRL) or backend.is_plain:
        return {}
    return {"use_liger_kernel": backend.liger, "torch_compile": backend.compile}


def _technique(source: ExportSource) -> dict[str, Any]:
    technique = source.spec.technique
    if isinstance(technique, SFT):
        completions = technique.completion_only and not technique.assistant_only
        return {
            "max_length": technique.max_length,
            "packing": technique.packing,
            "eval_packing": False,
            # TRL ignores the field where there is no completion, or refuses it.
            "completion_only_loss": completions if has_completions(source) else None,
            "assistant_only_loss": technique.assistant_only,
        }
    own = config_fields(source) if is_policy(source) else {"max_length": technique.max_length}
    return {**own, "disable_dropout": source.hyperparameters.lora_dropout == 0}


def _listed(name: str, value: Any) -> Any:
    """Return a field as TRL's parser gives it back; DPO may mix several losses, and its field is a list."""
    return [value] if name == "loss_type" and isinstance(value, str) else value


def _remarks(source: ExportSource) -> list[str]:
    metric = source.spec.evaluation.metric
    what = "model" if source.spec.adapter.is_full else "adapter"
    found = [f"The {what} of the best evaluation is kept in trained/ at the end."]
    if metric not in LOSSES:
        measure = "eval_reward, of sampled answers" if is_policy(source) else "eval_loss"
        found.append(f"TRL picks it by {measure}; the study picked by {metric}, which TRL cannot measure.")
    if source.on_cpu and source.four_bit:
        found.append(
            "It evaluates at the end only: bitsandbytes 0.50 spoils 4-bit training on some CPUs by evaluating."
        )
    if source.quantised is not None and source.dtype == "float32":
        found.append("TRL keeps the adapter of a quantised base in bfloat16, where the study kept float32.")
        if scores(source):
            found.append(
                "TRL keeps the head in bfloat16 too, so it computes in bfloat16, where the study did in float32."
            )
    return [*found, *(remarks(source) if is_policy(source) else [])]


def _parse(technique: Technique, file: Path) -> tuple[Any, Any, Any]:
    """Parse as TRL's command does; on the CPU, because the machine that exports need not be the one that trains."""
    import trl

    config = getattr(trl, technique.trl_configs[-1].partition(":")[2])
    classes = (_script_arguments(technique), config, trl.ModelConfig, trl.DatasetMixtureConfig)
    parser = trl.TrlParser(classes, prog=f"trl {technique.kind}")
    try:
        script, training, model, _ = parser.parse_args_and_config(["--config", str(file), "--use_cpu", "true"])
    except (SystemExit, ValueError, TypeError) as error:
        raise ExportError(f"the export does not verify: TRL refuses {file.name}: {error}") from error
    return script, training, model


def _script_arguments(technique: Technique) -> Any:
    """Return the class of a command's own arguments: those that take rewards have more of them."""
    import trl

    if not isinstance(technique, Policy):
        return trl.ScriptArguments
    kind = technique.kind
    return getattr(import_module(f"trl.scripts.{kind}"), f"{kind.upper()}ScriptArguments")


def _plain(value: Any) -> Any:
    """Return an enumeration's value, and anything else as it is."""
    return getattr(value, "value", value)
