"""A trial's configuration as fields of transformers' ``TrainingArguments``, which all TRL configs extend."""

from __future__ import annotations

from typing import Any

import torch

from sweeper.config.trial import TrialSpec
from sweeper.training.base_model import BaseModel


def training_arguments(spec: TrialSpec, base: BaseModel) -> dict[str, Any]:
    """Return the arguments of every technique; the trial's own TRL fields come last."""
    parameters = spec.hyperparameters
    return {
        "output_dir": str(spec.folder),
        "per_device_train_batch_size": parameters.batch_size,  # the whole effective batch; see micro_batch.py
        "gradient_accumulation_steps": 1,
        "num_train_epochs": parameters.epochs,
        "learning_rate": parameters.learning_rate,
        "lr_scheduler_type": parameters.lr_scheduler,
        # A whole number of steps, or a ratio below 1.
        "warmup_steps": (parameters.warmup_ratio or 0) if parameters.warmup_steps is None else parameters.warmup_steps,
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "activation_checkpointing": spec.technique.checkpoints(spec.adapter, base.device),
        "bf16": base.dtype is torch.bfloat16,
        "fp16": base.dtype is torch.float16,
        "use_cpu": base.device == "cpu",
        **base.backend.arguments(),
        "seed": spec.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **parameters.trl,
    }


def one_device(arguments: Any) -> Any:
    """Keep a trial on one device: the trainer would use every visible GPU, which TRL refuses."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
