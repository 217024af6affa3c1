"""The fields of TRL's config classes, read from the installed source; importing TRL would take seconds."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sweeper.config.technique import AnyTechnique

_BASES = ("trl.trainer.base_config:_BaseConfig", "transformers.training_args:TrainingArguments")

_SET_BY = {
    "batch_size": (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "auto_find_batch_size",
        "generation_batch_size",
        "steps_per_generation",
    ),
    "epochs": ("num_train_epochs",),
    "lr_scheduler": ("lr_scheduler_type",),
    "lora_rank": ("lora_r",),
    "target_modules": ("lora_target_modules",),
    "executor.micro_batch": ("per_device_eval_batch_size",),
    "technique.max_length": ("max_length",),
    "technique.completion_only": ("completion_only_loss",),
    "technique.turns": ("assistant_only_loss",),
    "technique.max_completion_length": ("max_completion_length",),
    "technique.rewards": ("reward_weights",),
    "lora_dropout": ("disable_dropout",),
    "technique.packing": ("packing",),
    "technique.gradient_checkpointing": ("gradient_checkpointing", "activation_checkpointing"),
    "model.dtype": ("bf16", "fp16"),
    "executor.device": ("use_cpu",),
    "backend": ("deepspeed", "fsdp", "fsdp_config"),
    "backend.liger": ("use_liger_kernel",),
    "backend.compile": ("torch_compile",),
    "seed": ("seed", "data_seed"),
    "evaluation.points": ("eval_steps", "eval_strategy"),
    "evaluation.metric": ("metric_for_best_model",),
    "model.trust_remote_code": ("trust_remote_code",),
}
RENAMED = {field: part for part, fields in _SET_BY.items() for field in fields}
"""TRL fields that sweeper sets from a part of the study, with that part."""

ROW_FIELDS = ("packing_strategy", "shuffle_dataset", "truncation_mode")
"""TRL fields that affect the preparation of a data set, beyond those that sweeper sets itself."""

_KEPT_FOR = {
    "steps": ("max_steps", "do_train", "do_eval", "do_predict", "num_iterations"),
    "checkpoints": ("save_steps", "save_strategy", "save_total_limit", "load_best_model_at_end"),
    "logs": ("logging_steps", "logging_strategy", "logging_nan_inf_filter", "log_completions", "disable_tqdm"),
    "output": ("output_dir", "run_name", "report_to", "push_to_hub", "hub_token", "hub_model_id"),
    "rows": ("remove_unused_columns", "dataset_kwargs", "dataset_text_field", "eval_packing"),
    "start": ("model_init_kwargs", "chat_template_path", "eos_token", "sync_ref_model", "resume_from_checkpoint"),
    "answers": ("num_generations_eval", "use_vllm", "use_transformers_continuous_batching", "use_transformers_paged"),
    "processes": ("average_tokens_across_devices", "parallelism_config", "accelerator_config"),
    "launcher": ("local_rank", "ddp_backend"),
}
OWNED = frozenset(field for fields in _KEPT_FOR.values() for field in fields)
"""TRL fields that sweeper sets for its bookkeeping."""


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
