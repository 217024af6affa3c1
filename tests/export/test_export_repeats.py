"""The exported TRL file against the trial it came from: the same losses, step by step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.config.adapter import LoRA
from sweeper.config.trial import Decision
from sweeper.export import export


def test_trl_repeats_the_trials_losses(make_source, tmp_path):
    from sweeper.training.base_model import load_base
    from sweeper.training.trial import train_trial

    source = make_source("messages", adapter=LoRA(), hyperparameters={"lora_dropout": 0.0})
    losses: dict[int, float] = {}

    def report(step, metrics):
        if "loss" in metrics:
            losses[step] = metrics["loss"]
        return Decision.CONTINUE

    spec = source.spec.model_copy(update={"folder": tmp_path / "trial"})
    base = load_base(source.base.folder, spec.model, spec.adapter, "cpu")
    result = train_trial(spec, base, report, micro_batch=4)
    assert result.total_steps == source.steps

    out = export(source, "trl", tmp_path / "out").folder
    command = [str(Path(sys.executable).with_name("trl")), "sft", "--config", str(out / "trl.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads(next((out / "trained").glob("checkpoint-*/trainer_state.json")).read_text())
    repeated = {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}
    assert repeated == pytest.approx(losses, rel=1e-3)
