"""Trials as a script around TRL trains them: nothing of sweeper's but the specification."""

from __future__ import annotations

from typing import Any

from sweeper.config.adapter import QLoRA
from sweeper.config.trial import TrialSpec
from sweeper.data.splits import read_prepared


def trl_curve(spec: TrialSpec, *, dtype: str = "float32", parts: int = 1) -> dict[str, list[float]]:
    """Train a specification and return its ``loss``, ``grad_norm`` and ``learning_rate`` of every step.

    Args:
        spec: The trial.
        dtype: What the model computes in.
        parts: Into how many forward passes a batch is split.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
    from trl import SFTConfig, SFTTrainer

    chosen, compute = spec.hyperparameters, getattr(torch, dtype)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    model = AutoModelForCausalLM.from_pretrained(
        spec.model_folder, dtype=compute, quantization_config=quantised if isinstance(spec.adapter, QLoRA) else None
    )
    set_seed(spec.seed)
    targets = chosen.target_modules
    lora = LoraConfig(
        r=chosen.lora_rank,
        lora_alpha=chosen.lora_alpha,
        lora_dropout=chosen.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    warmup: Any = chosen.warmup_steps if chosen.warmup_steps is not None else chosen.warmup_ratio or 0
    trainer = SFTTrainer(
        model=get_peft_model(model, lora),
        args=SFTConfig(
            output_dir=str(spec.folder / "trl"),
            per_device_train_batch_size=chosen.batch_size // parts,
            gradient_accumulation_steps=parts,
            num_train_epochs=chosen.epochs,
            learning_rate=chosen.learning_rate,
            lr_scheduler_type=chosen.lr_scheduler,
            warmup_steps=warmup,
            weight_decay=chosen.weight_decay,
            max_grad_norm=chosen.max_grad_norm,
            max_length=spec.technique.max_length,
            packing=spec.technique.packing,
            activation_checkpointing=False,
            bf16=dtype == "bfloat16",
            use_cpu=True,
            seed=spec.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(read_prepared(spec.train)),
        processing_class=AutoTokenizer.from_pretrained(spec.model_folder),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {name: [entry[name] for entry in logs] for name in ("loss", "grad_norm", "learning_rate")}
