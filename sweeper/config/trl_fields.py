"""The fields of TRL's config classes, read from the installed source without importing it (importing costs seconds)."""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

CONFIG_CLASSES = {
    "sft": ("trainer/sft_config.py", "SFTConfig"),
    "dpo": ("trainer/dpo_config.py", "DPOConfig"),
    "kto": ("trainer/kto_config.py", "KTOConfig"),
    "orpo": ("experimental/orpo/orpo_config.py", "ORPOConfig"),
    "cpo": ("experimental/cpo/cpo_config.py", "CPOConfig"),
    "reward": ("trainer/reward_config.py", "RewardConfig"),
    "grpo": ("trainer/grpo_config.py", "GRPOConfig"),
    "rloo": ("trainer/rloo_config.py", "RLOOConfig"),
}
"""Where TRL keeps the configuration of each technique."""

_BASES = (("trl", "trainer/base_config.py", "_BaseConfig"), ("transformers", "training_args.py", "TrainingArguments"))

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


@lru_cache
def trl_fields(technique: str) -> frozenset[str]:
    """Return the names of all fields of the technique's TRL config; empty where TRL is not installed."""
    if technique not in CONFIG_CLASSES:
        return frozenset()
    return frozenset().union(*(_annotated(*place) for place in (("trl", *CONFIG_CLASSES[technique]), *_BASES)))


def _annotated(package: str, file: str, class_name: str) -> frozenset[str]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return frozenset()
    tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    body = next((n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), [])
    names = (n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name))
    return frozenset(name for name in names if not name.startswith("_"))
