"""Time saved by keeping the quantised base between trials, against a script that loads it for every trial.

    python tests/benchmarks/base_reuse.py [--trials 3]

Both sides train the same QLoRA trials of SmolLM2-135M (6 steps of 8 rows, one evaluation) in this one process and on
the same threads: sweeper's `train_trial` on one `BaseModel`, and the usual Optuna-plus-TRL script, which calls
`from_pretrained` and `SFTTrainer` anew. The figures are ratios of the same run; an absolute time means nothing on a
shared machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from sweeper.config.adapter import QLoRA
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import Decision, TrialSpec
from sweeper.data.splits import PreparedData, load_splits, read_prepared, write_splits
from sweeper.models.resolve import resolve
from sweeper.training.base_model import load_base
from sweeper.training.device import resolve_device, resolve_dtype
from sweeper.training.library_logging import quieten
from sweeper.training.trial import train_trial

ITN = Path(__file__).parents[2] / "studies" / "data" / "itn"
ROWS, BATCH, MAX_LENGTH = 48, 8, 32
MODEL = ModelConfig(name="smollm2-135m")


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    trials = parser.parse_args().trials
    quieten()
    model = resolve(MODEL, Path.cwd()).path
    device = resolve_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        sources = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
        config = DataConfig(**sources, train_rows=ROWS, validation_rows=16, test_rows=16)
        data = write_splits(load_splits(config, ITN), Path(folder) / "data")
        script = [_timed(lambda: train_with_script(model, data, device, Path(folder))) for _ in range(trials)]
        started = time.perf_counter()
        base = load_base(model, MODEL, QLoRA(), device)
        loading = time.perf_counter() - started
        specs = [_specification(number, model, data, device, Path(folder)) for number in range(trials)]
        ours = [_timed(lambda spec=spec: _succeed(spec, base)) for spec in specs]
    print(f"{trials} trials on {device}, {torch.get_num_threads()} thread(s); loading the base once: {loading:.1f} s")
    print("| | a trial, median | all trials, loading included | ratio |")
    print("| --- | --- | --- | --- |")
    total = loading + sum(ours)
    print(f"| script that loads per trial | {median(script):.1f} s | {sum(script):.1f} s | 1.00 |")
    print(f"| sweeper | {median(ours):.1f} s | {total:.1f} s | {total / sum(script):.2f} |")


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _specification(number: int, model: Path, data: PreparedData, device: str, folder: Path) -> TrialSpec:
    return TrialSpec(
        study="benchmark",
        number=number,
        seed=number,
        model=MODEL,
        model_folder=model,
        technique=SFT(max_length=MAX_LENGTH),
        adapter=QLoRA(),
        train=data.train,
        validation=data.validation,
        hyperparameters=Hyperparameters(learning_rate=1e-3, batch_size=BATCH, epochs=1, warmup_ratio=0.0),
        evaluation=EvaluationConfig(points=1),
        device=device,
        folder=folder / str(number),
    )


def _succeed(spec: TrialSpec, base: object) -> None:
    result = train_trial(spec, base, lambda step, metrics: Decision.CONTINUE, BATCH)
    if result.value is None:
        raise SystemExit(f"the trial did not complete: {result.outcome}: {result.reason}")


def train_with_script(model: Path, data: PreparedData, device: str, folder: Path) -> None:
    """Train one trial as a script around TRL does it."""
    dtype = resolve_dtype("auto", device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, quantization_config=quantization, device_map={"": device}
    )
    arguments = SFTConfig(
        output_dir=str(folder / "script"),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=1e-3,
        max_length=MAX_LENGTH,
        activation_checkpointing=device != "cpu",
        bf16=dtype is torch.bfloat16,
        use_cpu=device == "cpu",
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=loaded,
        args=arguments,
        train_dataset=Dataset.from_list(read_prepared(data.train)),
        eval_dataset=Dataset.from_list(read_prepared(data.validation)),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
