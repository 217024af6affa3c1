"""The same trials in five ways: the loop that people write, sweeper's one-trial executor, and packed on one base.

    python tests/benchmarks/packed_vs_loop.py --preset tiny|smollm2|gpu [--trials 12] [--only a,c,d] [--slots 8]

(a)  Optuna, and for every trial `from_pretrained` in 4 bits and a new `SFTTrainer`
(a') the same, with Optuna's successive halving in a callback
(b)  sweeper's one-trial executor, whose base stays loaded
(c)  packed
(d)  packed, with asynchronous halving

(a') and (d) let the best third of the trials go on after the first of three evaluations.

Every way trains the same list of specifications (hyperparameters and seeds), drawn at random around the quickstart's
space, and runs in a process of its own, one after the other, on the same threads. What is compared are the ratios
within one run: an absolute time means nothing on a shared machine. `eval_loss` must agree between (a), (b) and (c):
to a few per cent, since TRL rounds adapters to bfloat16, and to rounding with `--float32-adapters`.

`tiny` and `gpu` build Llama models with random weights, `smollm2` is the real SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ITN = HERE.parents[2] / "studies" / "data" / "itn"
WAYS = {
    "a": "loop: load and train each trial",
    "a'": "the same, Optuna's halving",
    "b": "sweeper, one trial at a time",
    "c": "sweeper, packed",
    "d": "sweeper, packed, halving",
}

ETA = 3


@dataclass(frozen=True)
class Preset:
    """What is trained.

    Attributes:
        llama: Sizes of a random Llama; None for the real SmolLM2-135M.
        rows: Training rows.
        validation: Validation rows.
        max_length: Longest row in tokens; the rows of random models all have this length.
        batch_sizes: Effective batches to draw from.
        ranks: LoRA ranks to draw from.
        points: Evaluations of a trial.
    """

    llama: dict[str, int] | None
    rows: int
    validation: int
    max_length: int
    batch_sizes: tuple[int, ...]
    ranks: tuple[int, ...] = (8, 16, 32)
    points: int = 3
    trials: int = 12


def _llama(hidden: int, layers: int, heads: int, intermediate: int, vocabulary: int = 32000) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 4),
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
    }


PRESETS = {
    "tiny": Preset(_llama(256, 4, 4, 768, 2000), rows=64, validation=16, max_length=24, batch_sizes=(4, 8)),
    "smollm2": Preset(None, rows=192, validation=32, max_length=32, batch_sizes=(4, 8)),
    "gpu-0.5b": Preset(_llama(1024, 32, 16, 3072), 64, 8, 512, (1, 2), (16,)),
    "gpu-1.5b": Preset(_llama(2048, 28, 16, 6144), 64, 8, 512, (1, 2), (16,)),
    "gpu-8b": Preset(_llama(4096, 32, 32, 14336), 16, 4, 512, (1,), (16,), trials=8),
}
GPU = ("gpu-0.5b", "gpu-1.5b", "gpu-8b")


@dataclass
class Outcome:
    """What one way took and found.

    Attributes:
        way: Its letter.
        slots: Most trials at a time.
        seconds: From the first load to the end of the last trial.
        tokens: Training tokens, padding left out.
        peak_bytes: Peak resident memory of the process, or of the CUDA device.
        losses: The best evaluation loss of every trial by place; None where it was pruned.
        best_after: Seconds until the trial with the best loss of all had ended.
    """

    way: str
    slots: int
    seconds: float
    tokens: int
    peak_bytes: int
    losses: list[float | None]
    best_after: float


def main() -> None:
    """Run every way in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=[*PRESETS, "gpu"], default="tiny")
    parser.add_argument("--trials", type=int, help="fewer or more than the preset's")
    parser.add_argument("--slots", default="8", help="trials at a time in (c) and (d); several as 2,4,8")
    parser.add_argument("--only", default=",".join(WAYS), help="some of the ways, for example a,c")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument(
        "--float32-adapters", action="store_true", help="the loop keeps adapters in float32, as sweeper"
    )
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        _child(options)
        return
    found = {}
    for preset in GPU if options.preset == "gpu" else (options.preset,):
        found[preset] = _compare(preset, options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _compare(preset: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    outcomes = []
    with tempfile.TemporaryDirectory() as work:
        for way, slots in _ways(options):
            command = [sys.executable, str(HERE), "--preset", preset, "--way", way, "--work", work, "--slots", slots]
            command += ["--trials", str(options.trials)] if options.trials else []
            command += ["--float32-adapters"] if options.float32_adapters else []
            print(f"{preset}: ({way}) {WAYS[way]}, {slots} at a time ...", file=sys.stderr, flush=True)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            outcomes.append(Outcome(**json.loads((Path(work) / f"{way}.json").read_text())))
            print(f"  {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    _print(preset, outcomes)
    return [vars(outcome) for outcome in outcomes]


def _ways(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Return every way with its number of slots: those that pack once for each."""
    for way in options.only.split(","):
        yield from ((way, slots) for slots in (options.slots.split(",") if way in ("c", "d") else ("1",)))


def _print(preset: str, outcomes: list[Outcome]) -> None:
    first = outcomes[0]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"\n{preset}: {len(first.losses)} trials, OMP_NUM_THREADS={threads}; ratios to ({first.way})\n")
    print("| | makespan | tokens/s | trials/h | peak memory | best found after | eval_loss differs by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one in outcomes:
        rate, base_rate = one.tokens / one.seconds, first.tokens / first.seconds
        name = f"({one.way}) {WAYS[one.way]}" + (f", {one.slots} slots" if one.slots > 1 else "")
        print(
            f"| {name} | {one.seconds / first.seconds:.2f} ({one.seconds:.0f} s) "
            f"| {rate / base_rate:.1f} ({rate:.0f}) | {3600 * len(one.losses) / one.seconds:.0f} "
            f"| {one.peak_bytes / first.peak_bytes:.2f} ({one.peak_bytes / 2**30:.1f} GiB) "
            f"| {one.best_after:.0f} s | {_difference(one, first)} |"
        )
    print("\nbest trial: " + ", ".join(f"({one.way}) {_best(one)}" for one in outcomes))


def _difference(one: Outcome, first: Outcome) -> str:
    both = [(a, b) for a, b in zip(one.losses, first.losses, strict=True) if a is not None and b is not None]
    pruned = sum(loss is None for loss in one.losses)
    most = max((abs(a - b) / b for a, b in both), default=math.nan)
    return f"{most:.1e}" + (f" ({pruned} pruned)" if pruned else "")


def _best(one: Outcome) -> str:
    ended = [(loss, place) for place, loss in enumerate(one.losses) if loss is not None]
    return f"{min(ended)[1]}: {min(ended)[0]:.4f}" if ended else "none"


# ---- one way, in its own process


def _child(options: argparse.Namespace) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["SWEEPER_HOME"] = str(options.work / f"home-{options.way}-{options.slots}")
    preset = PRESETS[options.preset]
    trials = options.trials or preset.trials
    study = _study(preset, options.work, trials, options.way, int(options.slots))
    if options.way in ("a", "a'"):
        outcome = _loop(study, preset, options.way, options.float32_adapters)
    else:
        outcome = _sweeper(study, options.way)
    (options.work / f"{options.way}.json").write_text(json.dumps(vars(outcome)))


def _study(preset: Preset, work: Path, trials: int, way: str, slots: int) -> Any:
    """Write the study file of one way and load it; the model and the data are made by the first."""
    import yaml

    from sweeper.config.loader import load_study

    draw = random.Random(0)
    configurations = [
        {
            "learning_rate": round(math.exp(draw.uniform(math.log(1e-4), math.log(5e-3))), 7),
            "batch_size": draw.choice(preset.batch_sizes),
            "lora_rank": draw.choice(preset.ranks),
        }
        for _ in range(trials)
    ]
    packed = {"kind": "packed", "slots": slots} if way in ("c", "d") else {"kind": "inline"}
    study = {
        "name": "benchmark",
        "model": "smollm2-135m" if preset.llama is None else str(_random_llama(preset.llama, work)),
        "data": _data(preset, work),
        "technique": {"kind": "sft", "max_length": preset.max_length, "completion_only": preset.llama is None},
        "adapter": {"kind": "qlora"},
        "search": {
            "n_trials": trials,
            "known_good": False,
            "confirm": 0,
            "enqueue": configurations,
            "sampler": "random",
            "pruner": {"kind": "asha", "eta": ETA, "start": 1 / preset.points} if way == "d" else "none",
            "space": {
                "learning_rate": {"low": 1e-4, "high": 5e-3, "log": True},
                "batch_size": list(preset.batch_sizes),
                "lora_rank": list(preset.ranks),
                "epochs": 1,
                "warmup_ratio": 0.05,
                "lora_alpha": "2r",
                "lora_dropout": 0.0,
            },
        },
        "evaluation": {"points": preset.points, "metrics": ["perplexity"]},
        "executor": packed,
        "seed": 1,
    }
    path = work / f"study-{way.replace(chr(39), '-')}.yaml"
    path.write_text(yaml.safe_dump(study))
    return load_study(path)


def _data(preset: Preset, work: Path) -> dict[str, Any]:
    limits = {"train_rows": preset.rows, "validation_rows": preset.validation, "test_rows": preset.validation}
    if preset.llama is None:
        return {**{split: str(ITN / f"{split}.jsonl") for split in ("train", "validation", "test")}, **limits}
    files = {}
    draw = random.Random(0)
    for split in ("train", "validation", "test"):
        path = work / f"{split}.jsonl"
        if not path.exists():
            texts = (" ".join(str(draw.randrange(10)) for _ in range(preset.max_length)) for _ in range(preset.rows))
            path.write_text("".join(json.dumps({"prompt": "digits: ", "completion": text}) + "\n" for text in texts))
        files[split] = str(path)
    return {**files, **limits}


def _random_llama(sizes: dict[str, int], work: Path) -> Path:
    """Build a Llama with random weights and a byte-level tokenizer, once for all ways."""
    folder = work / "llama"
    if not folder.exists():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        sys.path.insert(0, str(HERE.parents[1]))
        import tiny

        tiny.build_tokenizer().save_pretrained(folder)
        torch.set_default_dtype(torch.bfloat16)
        try:
            LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=2048)).save_pretrained(folder)
        finally:
            torch.set_default_dtype(torch.float32)
    return folder


@contextmanager
def _begun(study: Any, listener: Any) -> Iterator[Any]:
    """Yield a study's context, up to its first trial."""
    from sweeper.executors.stop_request import StopRequest
    from sweeper.paths import Home
    from sweeper.store import Database
    from sweeper.study.context import begin
    from sweeper.study.resolve import resolve_study
    from sweeper.training.device import resolve_device

    home, device = Home.current(), resolve_device("auto")
    with Database.open(home.database, create=True) as database:
        yield begin(study, resolve_study(study, fetch=True), device, home, database, listener, StopRequest())


def _sweeper(study: Any, way: str) -> Outcome:
    from sweeper.executors.listener import Listener
    from sweeper.study.run import EXECUTORS
    from sweeper.training.library_logging import quieten

    class Clock(Listener):
        ended: dict[int, float] = {}  # noqa: RUF012

        def trial_ended(self, result: Any) -> None:
            self.ended[result.number] = time.perf_counter()

    quieten()
    with _begun(study, Clock()) as context:
        _warm()
        begun = time.perf_counter()
        EXECUTORS[study.config.executor.kind]().run(context)
        seconds = time.perf_counter() - begun
        trials = context.database.trials.all("benchmark")
        failed = [trial for trial in trials if trial.outcome not in ("complete", "pruned")]
        if failed:
            raise SystemExit(f"{failed[0].outcome}: {failed[0].reason}")
        losses = [trial.value for trial in trials]
        after = Clock.ended[_number_of_best(losses)] - begun
        slots = getattr(study.config.executor, "slots", 1)
        return Outcome(way, slots, seconds, sum(trial.tokens for trial in trials), _peak(context.device), losses, after)


def _loop(study: Any, preset: Preset, way: str, float32: bool) -> Outcome:
    """The script that people write: an Optuna study whose objective loads the model and trains it with TRL."""
    import optuna

    from sweeper.executors.lifecycle.trial_spec import specification
    from sweeper.executors.listener import Listener
    from sweeper.training.library_logging import quieten

    quieten()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _begun(study, Listener()) as context:
        specs = [specification(context, candidate) for candidate in iter(context.search.ask, None)]
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)
    study = optuna.create_study(pruner=halving if way == "a'" else optuna.pruners.NopPruner())
    losses: list[float | None] = []
    ended: list[float] = []
    tokens = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal tokens
        spec = specs[trial.number]
        losses.append(None)
        try:
            trained = _train(spec, preset, float32, lambda step, loss: _prune(trial, step, loss))
        finally:
            tokens += _train.tokens  # type: ignore[attr-defined]
            ended.append(time.perf_counter())
        losses[-1] = trained
        return trained

    _warm()
    begun = time.perf_counter()
    study.optimize(objective, n_trials=len(specs))
    seconds = time.perf_counter() - begun
    return Outcome(way, 1, seconds, tokens, _peak(specs[0].device), losses, ended[_number_of_best(losses)] - begun)


def _prune(trial: Any, step: int, loss: float) -> None:
    import optuna

    trial.report(loss, step)
    if trial.should_prune():
        raise optuna.TrialPruned


def _train(spec: Any, preset: Preset, float32: bool, evaluated: Callable[[int, float], None]) -> float:
    """Load the model in 4 bits, train it with TRL's own trainer, and return its best evaluation loss."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from sweeper.data.splits import read_prepared
    from sweeper.training.device import resolve_dtype

    chosen, dtype, cpu = spec.hyperparameters, resolve_dtype("auto", spec.device), spec.device == "cpu"
    steps = math.ceil(preset.rows / chosen.batch_size)

    class Evaluations(TrainerCallback):
        losses: list[float] = []  # noqa: RUF012

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            _train.tokens = state.num_input_tokens_seen  # type: ignore[attr-defined]
            count = spec.evaluation.points
            points = {math.ceil(steps * point / count) for point in range(1, count + 1)}
            control.should_evaluate = state.global_step in points
            return control

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            self.losses.append(metrics["eval_loss"])
            if state.global_step < steps:
                evaluated(len(self.losses), metrics["eval_loss"])

    model = AutoModelForCausalLM.from_pretrained(
        spec.model_folder,
        dtype=dtype,
        device_map={"": spec.device},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )
    if cpu:  # without this, evaluating repacks the weights and training after it is wrong (CONTRIBUTING.md)
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    set_seed(spec.seed)
    lora = LoraConfig(
        r=chosen.lora_rank, lora_alpha=chosen.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    callback = Evaluations()
    callback.losses = []
    trainer = SFTTrainer(
        model=get_peft_model(model, lora),
        args=SFTConfig(
            output_dir=str(spec.folder),
            per_device_train_batch_size=chosen.batch_size,
            per_device_eval_batch_size=preset.validation,
            num_train_epochs=chosen.epochs,
            learning_rate=chosen.learning_rate,
            warmup_steps=chosen.warmup_ratio,
            max_length=preset.max_length,
            completion_only_loss=spec.technique.completion_only,
            activation_checkpointing=not cpu,
            bf16=dtype is torch.bfloat16,
            use_cpu=cpu,
            include_num_input_tokens_seen="non_padding",
            seed=spec.seed,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(read_prepared(spec.train)),
        eval_dataset=Dataset.from_list(read_prepared(spec.validation)),
        processing_class=AutoTokenizer.from_pretrained(spec.model_folder),
        callbacks=[callback],
    )
    if float32:  # TRL keeps the adapters of a quantised base in bfloat16, also where everything else is float32
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    trainer.train()
    return min(callback.losses)


def _number_of_best(losses: list[float | None]) -> int:
    return min((loss, place) for place, loss in enumerate(losses) if loss is not None)[1]


def _warm() -> None:
    """Import what every way imports, before the clock starts."""
    import bitsandbytes
    import trl

    assert bitsandbytes and trl.SFTTrainer


def _peak(device: str) -> int:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    import torch

    return int(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
