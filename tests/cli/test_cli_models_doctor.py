"""``sweeper models`` and ``sweeper doctor`` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.models.cache import installation


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def sweeper(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def install(name: str) -> None:
    with installation(name, {"hub": "a/b", "license": "MIT"}) as building:
        assert building is not None
        (building / "model.safetensors").write_bytes(b"x" * 2_000_000)


def test_models_are_listed_with_their_place(cache):
    install("smollm2-135m")
    listed = {model["name"]: model for model in json.loads(sweeper("models", "list", "--json").stdout)}
    assert listed["smollm2-135m"]["here"] == str(cache / "models" / "smollm2-135m")
    assert listed["smollm2-135m"]["bytes"] >= 2_000_000
    assert listed["qwen3-0.6b"]["here"] is None
    shown = sweeper("models", "list").stdout
    assert "smollm2-135m" in shown
    assert "apache-2.0" in shown


def test_a_model_is_removed(cache):
    install("smollm2-135m")
    result = sweeper("models", "remove", "smollm2-135m")
    assert result.exit_code == 0
    assert "smollm2-135m removed, 2 MB freed" in result.stdout
    assert not (cache / "models" / "smollm2-135m").exists()
    again = sweeper("models", "remove", "smollm2-135m")
    assert again.exit_code == 2
    assert "no model 'smollm2-135m'" in again.stderr


@pytest.mark.parametrize("name", ["../../etc", "/etc", "nobody/nothing", ""])
def test_what_is_not_there_is_neither_pulled_nor_removed(name):
    for command in ("pull", "remove"):
        result = sweeper("models", command, name)
        assert result.exit_code == (2 if name or command == "remove" else result.exit_code), result.output
        assert result.exit_code != 0
        assert "Traceback" not in result.stderr
    assert Path("/etc").is_dir()


def test_the_doctor_looks_at_everything():
    result = sweeper("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = {finding["part"]: finding for finding in json.loads(result.stdout)}
    assert found["processors"]["state"] == "ok"
    assert found["dtype: auto"]["text"] == "float32: SWEEPER_CPU_DTYPE says so"
    assert found["torch"]["text"].startswith("2.")
    assert found["4-bit"]["state"] == "ok", found["4-bit"]
    assert found["Hugging Face Hub"]["state"] == "note"
    for part in ("liger-kernel", "deepspeed", "unsloth", "optuna-dashboard"):
        if found[part]["state"] == "missing":
            assert found[part]["advice"].startswith("adds ")
    assert found["attention sdpa"]["state"] == "ok"
    assert "auto" in found["attention sdpa"]["text"]
    assert found["attention flex_attention"]["text"] == "has no backward pass on the CPU; use sdpa"
    assert found["attention flash_attention_3"]["state"] == "missing"
    assert found["backend fsdp"]["state"] == "ok"


def test_the_doctor_says_what_keeps_sweeper_from_working(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "file" / "home"))
    result = sweeper("doctor")
    assert result.exit_code == 1
    assert "problem  SWEEPER_HOME" in result.stdout
    assert "set SWEEPER_HOME to a folder of your own" in result.stdout


def test_a_4_bit_layer_without_gradient_is_a_problem(monkeypatch):
    from sweeper.cli import doctor

    monkeypatch.setattr(doctor, "_quantisation_error", lambda device: 0.9)
    finding = doctor._four_bit()
    assert finding.state == "problem"
    assert "wrong by 90%" in finding.text


def test_versions_are_held_against_those_tested_with(monkeypatch):
    from importlib.metadata import version

    from sweeper.cli import doctor

    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", f"trl=={version('trl')}", 'x>1; extra == "dev"'])
    found = {finding.part: finding for finding in doctor._packages()}
    assert found["torch"].state == "note"
    assert found["torch"].advice == "tested with >=99: pip install 'torch>=99'"
    assert found["trl"].state == "ok"
