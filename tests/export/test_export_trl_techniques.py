"""What is exported of preference, reward and policy studies runs under TRL's own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.rewards import ExactMatchReward, FunctionReward, LengthReward, RewardSources
from sweeper.config.technique import CPO, DPO, GRPO, KTO, ORPO, RLOO, RewardModel
from sweeper.errors import ExportError
from sweeper.export import export

SHORT = ("dpo",)
"""What is trained in every run of the tests, beside a reward model; the others are ``long``."""

LORA = LoRA()
REWARDS = (LengthReward(target=4, weight=0.5), FunctionReward(function="earning:ones"), ExactMatchReward())
TECHNIQUES = {
    "dpo": (DPO(max_length=64), "preference"),
    "kto": (KTO(max_length=64), "unpaired"),
    "reward": (RewardModel(max_length=64), "preference"),
    "grpo": (GRPO(max_length=64, max_completion_length=4, rewards=REWARDS), "prompt"),
    "rloo": (RLOO(max_length=64, max_completion_length=4, rewards=REWARDS), "prompt"),
}


def source(make_source, kind, folder, adapter=LORA, **hyperparameters):
    technique, shape = TECHNIQUES[kind]
    made = make_source(shape, adapter=adapter, technique=technique, hyperparameters={"epochs": 1.0, **hyperparameters})
    earning = folder / "study"
    earning.mkdir(exist_ok=True)
    (earning / "earning.py").write_text("def ones(completions, **_):\n    return [1] * len(completions)\n")
    decides = EvaluationConfig(metric=technique.metric, metrics=technique.metrics, points=3)
    found = {"evaluation": decides, "reward_sources": RewardSources(study_folder=earning)}
    return make_source(shape, technique=technique, spec=made.spec.model_copy(update=found), steps=3)


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        *(pytest.param(kind, LoRA(), marks=() if kind in SHORT else pytest.mark.long) for kind in TECHNIQUES),
        pytest.param("reward", QLoRA(), marks=pytest.mark.long),
    ],
    ids=[*TECHNIQUES, "reward-qlora"],
)
def test_trl_trains_what_is_exported(make_source, tmp_path, kind, adapter):
    trl = {"num_generations": 4} if kind in ("grpo", "rloo") else {}
    out = export(source(make_source, kind, tmp_path, adapter, trl=trl), "trl", tmp_path / "out").folder
    values = yaml.safe_load((out / "trl.yaml").read_text())
    file = "trl.yaml" if trl else str(out / "trl.yaml")
    assert f"trl {kind} --config {file}" in (out / "trl.yaml").read_text()
    command = [str(Path(sys.executable).with_name("trl")), kind, "--config", file]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    where = out if trl else tmp_path
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    trained = json.loads((out / "trained" / "adapter_config.json").read_text())
    assert trained["r"] == 4
    assert trained["task_type"] == ("SEQ_CLS" if kind == "reward" else "CAUSAL_LM")
    assert ("score" in (trained["modules_to_save"] or [])) == (kind == "reward")
    state = json.loads(next((out / "trained").glob("checkpoint-*/trainer_state.json")).read_text())
    decides = f"eval_{values['metric_for_best_model'].removeprefix('eval_')}"
    assert any(decides in entry for entry in state["log_history"])
    if trl:
        assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 8 * 4
        assert {"rewards/length/mean", "rewards/function/mean", "rewards/exact_match/mean"} <= state["log_history"][
            0
        ].keys()
        assert state["log_history"][0]["rewards/function/mean"] == 1.0


@pytest.mark.parametrize(("technique", "kind"), [(ORPO(), "orpo"), (CPO(), "cpo")])
def test_what_trls_command_line_lacks_is_said(make_source, tmp_path, technique, kind):
    with pytest.raises(ExportError, match=f"TRL's command line has no {kind}"):
        export(make_source("preference", technique=technique), "trl", tmp_path / "out")
