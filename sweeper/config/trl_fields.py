"""The fields of TRL's config classes, read from the installed source without importing it (importing costs seconds)."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sweeper.config.technique import AnyTechnique

_BASES = ("trl.trainer.base_config:_BaseConfig", "transformers.training_args:TrainingArguments")

RENAMED = {
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "batch_size",
    "auto_find_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "lr_scheduler_type": "lr_scheduler",
    "lora_r": "lora_rank",
    "lora_target_modules": "target_modules",
    "per_device_eval_batch_size": "executor.micro_batch",
    "max_length": "technique.max_length",
    "completion_only_loss": "technique.completion_only",
    "assistant_only_loss": "technique.assistant_only",
    "max_completion_length": "technique.max_completion_length",
    "generation_batch_size": "batch_size",
    "steps_per_generation": "batch_size",
    "reward_weights": "technique.rewards",
    "disable_dropout": "lora_dropout",
    "packing": "technique.packing",
    "gradient_checkpointing": "technique.gradient_checkpointing",
    "activation_checkpointing": "technique.gradient_checkpointing",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "use_cpu": "executor.device",
    "deepspeed": "backend",
    "fsdp": "backend",
    "fsdp_config": "backend",
    "use_liger_kernel": "backend.liger",
    "torch_compile": "backend.compile",
    "seed": "seed",
    "data_seed": "seed",
    "eval_steps": "evaluation.points",
    "eval_strategy": "evaluation.points",
    "metric_for_best_model": "evaluation.metric",
    "trust_remote_code": "model.trust_remote_code",
}
"""TRL fields that sweeper sets from a part of the study of its own."""

ROW_FIELDS = ("packing_strategy", "shuffle_dataset", "truncation_mode")
"""TRL fields that preparing a data set looks at, beyond those that sweeper sets itself."""

OWNED = frozenset(
    {
        "output_dir",
        "eval_packing",
        "logging_nan_inf_filter",
        "average_tokens_across_devices",
        "parallelism_config",
        "accelerator_config",
        "local_rank",
        "ddp_backend",
        "chat_template_path",
        "eos_token",
        "max_steps",
        "logging_steps",
        "logging_strategy",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "load_best_model_at_end",
        "report_to",
        "run_name",
        "push_to_hub",
        "hub_token",
        "hub_model_id",
        "resume_from_checkpoint",
        "disable_tqdm",
        "remove_unused_columns",
        "dataset_kwargs",
        "dataset_text_field",
        "model_init_kwargs",
        "num_iterations",
        "num_generations_eval",
        "sync_ref_model",
        "use_vllm",
        "use_transformers_continuous_batching",
        "use_transformers_paged",
        "log_completions",
        "do_train",
        "do_eval",
        "do_predict",
    }
)
"""TRL fields that sweeper sets for its own bookkeeping."""


def trl_fields(technique: type[AnyTechnique]) -> frozenset[str]:
    """Return the names of all fields of the technique's TRL config; empty if TRL is not installed."""
    return frozenset().union(*map(_annotated, (*technique.trl_configs, *_BASES)))


@cache
def _annotated(place: str) -> frozenset[str]:
    module, _, class_name = place.partition(":")
    package, *parts = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return frozenset()
    file = Path(spec.origin).parent.joinpath(*parts).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = next((n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), [])
    names = (n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name))
    return frozenset(name for name in names if not name.startswith("_"))
