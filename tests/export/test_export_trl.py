from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweeper.config.adapter import Full, LoRA, QLoRA
from sweeper.config.technique import SFT
from sweeper.export import export


def values(out: Path) -> dict:
    return yaml.safe_load((out / "trl.yaml").read_text())


def test_the_file_says_what_the_trial_was(make_source, tmp_path):
    out = export(make_source(adapter=QLoRA(rslora=True), dtype="bfloat16"), "trl", tmp_path / "out").folder
    found = values(out)
    assert found["learning_rate"] == 2e-3
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 8
    assert (found["lora_r"], found["lora_alpha"], found["use_rslora"]) == (4, 8, True)
    assert (found["load_in_4bit"], found["bnb_4bit_quant_type"], found["use_bnb_nested_quant"]) == (True, "nf4", True)
    assert (found["dtype"], found["bf16"], found["use_cpu"], found["seed"]) == ("bfloat16", True, True, 1234)
    assert found["warmup_steps"] == 0.1
    assert (out / "data" / "train.jsonl").read_bytes() == make_source().train.path.read_bytes()
    assert f"trl sft --config {out / 'trl.yaml'}" in (out / "trl.yaml").read_text()


@pytest.mark.parametrize(
    ("adapter", "eight", "four"),
    [(LoRA(), False, False), (QLoRA(quantization="int8"), True, False), (QLoRA(quantization="fp4"), False, True)],
)
def test_every_adapter_kind_passes_trls_parser(make_source, tmp_path, adapter, eight, four):
    out = export(make_source(adapter=adapter), "trl", tmp_path / "out").folder
    assert (values(out)["load_in_8bit"], values(out)["load_in_4bit"]) == (eight, four)


def test_a_cuda_trial_is_exported_and_verified_without_a_gpu(make_source, tmp_path):
    source = make_source(dtype="bfloat16")
    spec = source.spec.model_copy(update={"device": "cuda"})
    found = values(export(make_source(dtype="bfloat16", spec=spec), "trl", tmp_path / "out").folder)
    assert (found["use_cpu"], found["activation_checkpointing"]) == (False, True)


@pytest.mark.parametrize("alpha", [1.5, 6.0])
@pytest.mark.parametrize("modules", ["all-linear", ("q_proj",), ("q_proj", "v_proj")])
def test_fractional_alpha_and_target_modules_survive_trls_parser(make_source, tmp_path, alpha, modules):
    source = make_source(hyperparameters={"lora_alpha": alpha, "target_modules": modules})
    found = values(export(source, "trl", tmp_path / "out").folder)
    assert found["lora_alpha"] == alpha


def test_further_trl_fields_are_kept(make_source, tmp_path):
    source = make_source(hyperparameters={"trl": {"adam_beta2": 0.95, "neftune_noise_alpha": 5.0}})
    assert values(export(source, "trl", tmp_path / "out").folder)["adam_beta2"] == 0.95


def test_completion_only_is_left_out_where_there_is_no_completion(make_source, tmp_path):
    assert "completion_only_loss" not in values(export(make_source("text"), "trl", tmp_path / "text").folder)
    source = make_source(technique=SFT(max_length=64, completion_only=False))
    assert values(export(source, "trl", tmp_path / "all").folder)["completion_only_loss"] is False


@pytest.mark.parametrize(
    ("shape", "adapter", "dtype", "evaluations"),
    [
        ("messages", QLoRA(), "bfloat16", [6]),
        pytest.param("text", LoRA(dora=True), "float32", [2, 4, 6], marks=pytest.mark.long),
        pytest.param("prompt_completion", Full(), "float32", [2, 4, 6], marks=pytest.mark.long),
    ],
)
def test_trl_runs_the_file_to_its_end_offline(make_source, tmp_path, shape, adapter, dtype, evaluations):
    source = make_source(shape, adapter=adapter, dtype=dtype)
    # The folder's name holds split names, which must not confuse where TRL looks for the data.
    out = export(source, "trl", tmp_path / "train-test").folder
    command = [str(Path(sys.executable).with_name("trl")), "sft", "--config", str(out / "trl.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = "model.safetensors" if adapter.is_full else "adapter_model.safetensors"
    assert (out / "trained" / weights).is_file()
    state = json.loads(next((out / "trained").glob("checkpoint-*/trainer_state.json")).read_text())
    assert state["max_steps"] == source.steps
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == evaluations
