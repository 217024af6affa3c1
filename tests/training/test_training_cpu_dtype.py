"""The CPU's number type: measured once for a machine, and kept by the study that it was picked for."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from sweeper.check.report import check_study
from sweeper.config.model import ModelConfig
from sweeper.errors import UserError
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.store import Database
from sweeper.study.context import open_stored
from sweeper.study.resolved_inputs import ResolvedInputs
from sweeper.study.run import run_study
from sweeper.training import cpu_dtype
from sweeper.training.cpu_dtype import CpuDtype, is_measured, is_quantised, known, measure, pick

BFLOAT16_WINS = {"float32": 0.2, "bfloat16": 0.1}


@pytest.fixture
def measured(monkeypatch):
    """Let the measurement say what the test says, on a machine with a name; return which bases were measured."""
    asked = []

    def stand_in(*, quantised):
        asked.append(quantised)
        return dict(BFLOAT16_WINS)

    monkeypatch.delenv("SWEEPER_CPU_DTYPE")
    monkeypatch.setattr(cpu_dtype, "measure", stand_in)
    monkeypatch.setattr(cpu_dtype, "cpu_name", lambda: "Abacus 9000")
    return asked


def test_the_faster_type_is_picked_and_remembered(measured):
    assert known(quantised=True) is None
    expected = CpuDtype("bfloat16", "measured on this Abacus 9000: 2.0 times as fast as float32")
    assert pick(quantised=True) == pick(quantised=True) == known(quantised=True) == expected
    assert measured == [True]
    assert pick(quantised=False).dtype == "bfloat16"  # another question
    assert measured == [True, False]


@pytest.mark.parametrize("part", ["cpu_name", "cpu_features", "version"])
def test_another_machine_or_torch_is_measured_again(measured, monkeypatch, part):
    pick(quantised=True)
    monkeypatch.setattr(cpu_dtype, part, lambda *_: "another")
    assert known(quantised=True) is None
    pick(quantised=True)
    assert measured == [True, True]
    assert len(json.loads(cpu_dtype._file().read_text())) == 2  # a cache on a shared disk serves both


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"KEY": 3}', '{"KEY": {"float32": 1.0}}', '{"KEY": {"float32": "fast", "bfloat16": 1}}',
                '{"KEY": {"float32": -1, "bfloat16": 1}}', '{"KEY": {"float32": NaN, "bfloat16": 1}}']
)  # fmt: skip
def test_a_damaged_cache_is_measured_again(measured, content):
    file = cpu_dtype._file()
    file.parent.mkdir(parents=True)
    file.write_text(content.replace("KEY", cpu_dtype._key(True)))
    assert known(quantised=True) is None
    assert pick(quantised=True).dtype == "bfloat16"
    assert known(quantised=True) is not None


def test_a_cache_that_cannot_be_written_stops_nothing(measured, monkeypatch, tmp_path):
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "occupied" / "cache"))
    assert pick(quantised=True).dtype == "bfloat16"
    assert pick(quantised=True).dtype == "bfloat16"
    assert measured == [True, True]


def test_the_environment_decides_and_nothing_is_measured(measured, monkeypatch):
    monkeypatch.setenv("SWEEPER_CPU_DTYPE", "float32")
    assert pick(quantised=True) == CpuDtype("float32", "SWEEPER_CPU_DTYPE says so")
    assert measured == []
    monkeypatch.setenv("SWEEPER_CPU_DTYPE", "float16")
    with pytest.raises(UserError, match="SWEEPER_CPU_DTYPE is 'float16'; it must be one of float32, bfloat16"):
        pick(quantised=True)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_real_measurement_times_both_types(quantised):
    seconds = measure(quantised=quantised)
    assert set(seconds) == {"float32", "bfloat16"}
    assert all(0 < each < 60 for each in seconds.values())


def test_what_is_known_is_read_without_torch(measured, monkeypatch):
    pick(quantised=True)
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    assert known(quantised=True) is not None
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({}, (True, False)),
        ({"adapter": "qlora"}, (True, True)),
        ({"adapter": {"kind": "qlora", "quantization": "int8"}}, (True, True)),
        ({"adapter": "full"}, (False, False)),
    ],
)
def test_studies_of_adapters_are_measured(study_file, changed, expected):
    config = study_file(search={"space": {"learning_rate": 1e-3}}, **changed).config
    assert (is_measured(config), is_quantised(config)) == expected


def test_a_study_that_names_its_type_is_not_measured(study_file, tiny_model):
    config = study_file(model={"name": str(tiny_model), "dtype": "bfloat16"}).config
    assert not is_measured(config)


def test_a_study_keeps_the_type_that_it_began_with(measured, begin, monkeypatch):
    notes = []
    context = begin(SimpleNamespace(note=notes.append))
    assert "computes in bfloat16: measured on this Abacus 9000: 2.0 times as fast as float32" in notes
    assert [model.config.dtype for model in context.models.values()] == ["bfloat16"]
    monkeypatch.setenv("SWEEPER_CPU_DTYPE", "float32")  # as on another machine
    again = open_stored("tiny", Home.current(), context.database, Listener(), StopRequest())
    assert [model.config.dtype for model in again.models.values()] == ["bfloat16"]
    assert measured == [False]


def test_a_study_on_a_gpu_is_not_told_what_suits_the_cpu(begin):
    context = begin()
    inputs = ResolvedInputs.read("tiny", context.paths.resolved)
    assert [model.config.dtype for model in inputs.study_models(context.config, "cuda:0").values()] == ["auto"]
    assert [model.config.dtype for model in inputs.study_models(context.config, "cpu").values()] == ["float32"]


def test_a_type_that_the_study_names_is_kept(begin, tiny_model):
    context = begin(model={"name": str(tiny_model), "dtype": "bfloat16"})
    assert [model.config.dtype for model in context.models.values()] == ["bfloat16"]


def test_trials_train_in_the_type_that_was_picked(measured, study_file):
    study = study_file(search={"n_trials": 1}, evaluation={"metrics": ["perplexity"], "candidates": 1})
    run_study(study, force=True)
    with Database.open(Home.current().database, create=False) as database:
        assert [trial.dtype for trial in database.trials.all("tiny")] == ["bfloat16"]


def test_check_names_the_type_and_the_reason(measured, study_file):
    file = study_file()
    lines = check_study(file).sections[0].lines
    assert "computes in float32 or bfloat16, whichever a measurement of about a second finds faster" in lines
    pick(quantised=False)
    lines = check_study(file).sections[0].lines
    assert "computes in bfloat16: measured on this Abacus 9000: 2.0 times as fast as float32" in lines
    assert measured == [False]


def test_the_frozen_base_alone_is_in_bfloat16(tiny_model):
    from sweeper.config.adapter import LoRA
    from sweeper.config.parameters import Hyperparameters
    from sweeper.training.adapters import cast_adapter, peft_config
    from sweeper.training.base_model import load_base

    base = load_base(tiny_model, ModelConfig(name="tiny", dtype="bfloat16"), LoRA(), "cpu")
    with base.adapted(peft_config(LoRA(), Hyperparameters(learning_rate=1e-3, batch_size=2, epochs=1)), 0) as model:
        cast_adapter(base, model)
        kinds = {weight.requires_grad: weight.dtype for weight in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
