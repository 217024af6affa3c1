"""The worker, watched: it writes down what its trainer runs on and how it ended, and breaks where a test asks it to.

A script, so that it runs in processes of their own. ``BREAK`` is what to do on rank 1 in the second step, or where
``BREAK_RANK`` and ``BREAK_STEP`` say; followed by "once", the next attempt is spared.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from sweeper.executors.distributed import rank as worker

BREAK, _, ONCE = os.environ.get("BREAK", "").partition(" ")
RANK, STEP = int(os.environ.get("BREAK_RANK", "1")), int(os.environ.get("BREAK_STEP", "1"))


def facts(trainer) -> dict[str, object]:
    """What a trainer runs on, in the libraries' own words."""
    from torch.distributed.tensor import DTensor

    parameters = list(trainer.model.parameters())
    engine = trainer.model_wrapped
    return {
        "engine": type(engine).__name__,
        "stage": engine.zero_optimization_stage() if hasattr(engine, "zero_optimization_stage") else None,
        "spread": all(hasattr(p, "ds_id") and not p.ds_persist for p in parameters),
        "dtensors": all(isinstance(p, DTensor) for p in parameters),
        "held": sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters),
    }


def misfortune(rows: int) -> None:
    import torch

    match BREAK:
        case "memory":
            if rows > 1:
                raise torch.OutOfMemoryError("no memory left on rank 1")
        case "crash":
            raise RuntimeError("rank 1 broke")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)


def spread_the_smallest() -> None:
    """Let stage 3 spread every weight; by itself it leaves those whole that are small, which here are all."""
    from sweeper.training.backends import deepspeed

    original = deepspeed.settings

    def settings(*arguments):
        made = original(*arguments)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    deepspeed.settings = settings


def load_as_trl_does() -> None:
    """Let a trial of TRL alone have a process of its own, as one of Unsloth's has, which is not installed here."""
    from sweeper.training.backends import table
    from sweeper.training.base_model import load_base

    table.load = lambda spec, ranks, port: load_base(spec.model_folder, spec.model, spec.adapter, spec.device)


def watch(rank: int, folder: Path) -> None:
    from sweeper.training.techniques.sft import MicroBatchedSFTTrainer

    original = MicroBatchedSFTTrainer.compute_loss

    def compute_loss(self, model, inputs, **more):
        folder.mkdir(parents=True, exist_ok=True)
        noted = folder / f"facts-{rank}.json"
        if not noted.exists():
            noted.write_text(json.dumps({**facts(self), "process": os.getpid()}))
        broken = folder / "broken"
        if (rank, self.state.global_step) == (RANK, STEP) and not (ONCE and broken.exists()):
            broken.touch()
            misfortune(len(inputs["input_ids"]))
        return original(self, model, inputs, **more)

    MicroBatchedSFTTrainer.compute_loss = compute_loss


def train(job, parent):
    watch(job.rank, job.spec.folder)
    if job.spec.backend.kind == "deepspeed":
        spread_the_smallest()
    if job.spec.backend.kind == "trl":
        load_as_trl_does()
    result = original_train(job, parent)
    (job.spec.folder / f"result-{job.rank}.json").write_text(result.model_dump_json())
    return result


if __name__ == "__main__":
    original_train, worker.train = worker.train, train
    sys.exit(worker.main())
