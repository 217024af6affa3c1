"""Every table is asked about every kind of every union: a kind that somebody adds and forgets somewhere fails here."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from optuna.pruners import NopPruner
from support_matrix import ADAPTERS as MATRIX_ADAPTERS
from support_matrix import BACKENDS as MATRIX_BACKENDS
from support_matrix import TECHNIQUES as MATRIX_TECHNIQUES

from sweeper.config import evaluation, search
from sweeper.config.adapter import ADAPTERS, AnyAdapter
from sweeper.config.backend import Backend, in_own_processes
from sweeper.config.base import Frozen, kinds
from sweeper.config.combinations import refusal
from sweeper.config.executor import Executor
from sweeper.config.parameters import PARAMETERS, Hyperparameters
from sweeper.config.rewards import Reward
from sweeper.config.technique import SFT, TECHNIQUES, AnyTechnique, Policy
from sweeper.config.trl_fields import trl_fields
from sweeper.presets.presets import recommend

STUDIES = Path(__file__).parents[2] / "studies"
WHOLE = Hyperparameters(learning_rate=1e-3, batch_size=8, epochs=1.0)
SAMPLERS, PRUNERS = kinds(search.Sampler), kinds(search.Pruner)
BOUNDS = {"threshold": {"upper": 3.0}}
"""What pruners need that has no default."""


class Forgotten(AnyAdapter):
    """An adapter kind that somebody added to no table."""

    kind: Literal["forgotten"] = "forgotten"


class ForgottenPruner(Frozen):
    """A pruner kind that somebody added to no table."""

    kind: Literal["forgotten"] = "forgotten"


def by_kind(instances):
    return {each.kind: each for each in instances}


# Techniques


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=list(TECHNIQUES))
def test_a_technique_has_a_trainer_and_its_configuration_in_trl(technique):
    kind = technique.model_fields["kind"].default
    file, function = technique.trainer.split(":")
    module = import_module(f"sweeper.training.techniques.{file}")
    assert callable(getattr(module, function))
    if technique is not SFT:
        config, trainer = module.TRAINERS[kind]
        assert f"{config.__module__}:{config.__name__}" == technique.trl_configs[-1]
        assert issubclass(trainer, import_module("transformers").Trainer)
        parents = {f"{base.__module__}:{base.__name__}" for base in config.__mro__}
        assert parents.issuperset(technique.trl_configs)
        own = set(config.__dataclass_fields__) - set(
            import_module("transformers").TrainingArguments.__dataclass_fields__
        )
        assert trl_fields(technique) >= own
    assert set(technique.parameters) <= trl_fields(technique)
    assert not set(technique.parameters) & set(PARAMETERS)


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=list(TECHNIQUES))
def test_the_defaults_of_a_techniques_parameters_are_those_of_trl(technique):
    module, _, config = technique.trl_configs[-1].partition(":")
    fields = getattr(import_module(module), config).__dataclass_fields__
    found = {name: fields[name].default for name in technique.parameters}
    lists = {name: of for name, of in found.items() if isinstance(of, str | int | float | None)}
    assert lists == {name: technique.parameters[name].default for name in lists}


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=list(TECHNIQUES))
def test_a_technique_is_exported_to_trls_command_line_if_there_is_one(technique):
    command = find_spec(f"trl.scripts.{technique.model_fields['kind'].default}")
    assert technique.trl_command == (command is not None)


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=list(TECHNIQUES))
def test_a_technique_says_what_its_rows_are_and_what_decides(technique):
    from sweeper.data.as_trained import _VIEWS

    possible = evaluation.METRICS_OF[technique.rows]
    assert technique.metric in possible and set(technique.metrics) <= set(possible)
    assert technique.view in _VIEWS and technique.learning.endswith(".")


def test_every_technique_and_adapter_is_in_the_support_matrix_and_has_a_study_and_ranges():
    assert set(by_kind(MATRIX_TECHNIQUES)) == set(TECHNIQUES)
    assert {each.kind for each in MATRIX_ADAPTERS.values()} == set(ADAPTERS)
    assert set(by_kind(MATRIX_BACKENDS)) == set(kinds(Backend))
    texts = [path.read_text(encoding="utf-8") for path in STUDIES.glob("*.yaml")]
    for kind in (*TECHNIQUES, *ADAPTERS):
        assert any(kind in text for text in texts), f"studies/ has no example of {kind}"
    assert {kind for kind in TECHNIQUES if kind not in recommend(kind, "lora").recommended_for.techniques} == set()
    assert {kind for kind in ADAPTERS if kind not in recommend("sft", kind).recommended_for.adapters} == set()


def test_every_pair_of_technique_and_adapter_is_answered():
    for technique in MATRIX_TECHNIQUES:
        for adapter in MATRIX_ADAPTERS.values():
            assert refusal(technique, adapter) is None or "{" not in refusal(technique, adapter)


def test_the_policies_of_a_pipeline_are_all_policies():
    from sweeper.config.pipeline import STAGES

    assert set(STAGES["policy"]) == {kind for kind, of in TECHNIQUES.items() if issubclass(of, Policy)}


# Adapters


@pytest.mark.parametrize("adapter", MATRIX_ADAPTERS.values(), ids=list(MATRIX_ADAPTERS))
def test_an_adapter_has_a_peft_configuration_and_the_weights_it_trains(adapter, tiny_model):
    from sweeper.models.facts import read_facts
    from sweeper.models.memory import Workload, trained_parameters
    from sweeper.training.adapters import peft_config

    assert (peft_config(adapter, WHOLE) is None) == adapter.is_full
    facts = read_facts(tiny_model)
    work = Workload(adapter, 4, "all-linear", 16, "float32", gradient_checkpointing=False)
    assert 0 < trained_parameters(facts, work) <= facts.parameters
    assert adapter.title[0].isupper()


def test_an_adapter_that_somebody_forgot_is_not_trained_as_a_whole_model(tiny_model):
    from sweeper.models.facts import read_facts
    from sweeper.models.memory import Workload, trained_parameters
    from sweeper.training.adapters import peft_config

    with pytest.raises(AttributeError, match="peft"):
        peft_config(Forgotten(), WHOLE)
    work = Workload(Forgotten(), 4, "all-linear", 16, "float32", gradient_checkpointing=False)
    with pytest.raises(AssertionError, match="forgotten"):
        trained_parameters(read_facts(tiny_model), work)
    with pytest.raises(AttributeError, match="title"):
        _ = Forgotten.title


# Backends and executors


@pytest.mark.parametrize("backend", MATRIX_BACKENDS, ids=lambda each: f"{each.kind}{getattr(each, 'stage', '')}")
def test_a_backend_is_answered_and_trains_somewhere(backend, monkeypatch):
    from sweeper import compatibility
    from sweeper.config.model import ModelConfig
    from sweeper.hardware import Gpu

    monkeypatch.setattr(compatibility, "find_spec", lambda module: object())
    case = compatibility.Case(
        SFT(), MATRIX_ADAPTERS["lora"], backend, ModelConfig(name="any"), "cuda:0", (Gpu("any", 9.0),)
    )
    assert list(compatibility.refusals(case)) == []
    assert in_own_processes(backend) == (backend.kind != "trl")


def test_a_backend_that_somebody_forgot_is_not_taken_for_another():
    from sweeper.training.backends import table
    from sweeper.training.ranks import Ranks

    class Spec:
        backend, device = Forgotten(), "cpu"

    with pytest.raises(AssertionError, match="forgotten"):
        table.load(Spec(), Ranks(), 0)


def test_every_executor_is_run():
    from sweeper.study.run import EXECUTORS

    assert set(EXECUTORS) == set(kinds(Executor))


# Samplers and pruners


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_is_built(kind):
    from sweeper.config.space import as_range
    from sweeper.search.samplers.build import build_sampler

    space = {"learning_rate": as_range({"low": 1e-4, "high": 1e-3, "log": True})}
    assert build_sampler(SAMPLERS[kind](), space, n_trials=20, objectives=1, seed=1) is not None


@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_is_built_and_its_decisions_are_recorded(kind):
    from sweeper.search.pruners.base import DecidingPruner
    from sweeper.search.pruners.build import build_pruner, rungs

    pruner = PRUNERS[kind](**BOUNDS.get(kind, {}))
    built = build_pruner(pruner)
    assert isinstance(built, NopPruner if kind == "none" else DecidingPruner)
    assert kind == "none" or built.kind == kind
    assert bool(rungs(pruner)) == bool(rungs(pruner, seed=0)) == hasattr(built, "rungs")


def test_a_pruner_or_sampler_that_somebody_forgot_is_not_taken_for_another():
    from sweeper.search.pruners.build import build_pruner
    from sweeper.search.samplers.build import build_sampler

    with pytest.raises(AssertionError, match="forgotten"):
        build_pruner(ForgottenPruner())
    with pytest.raises(AssertionError, match="forgotten"):
        build_sampler(ForgottenPruner(), {}, n_trials=200, objectives=1, seed=1)


# Metrics


def test_every_metric_has_a_class_a_direction_and_a_technique():
    from sweeper.evaluation.metrics import METRICS

    assert set(METRICS) == set(evaluation.METRICS) == set(get_args(evaluation.Metric))
    measured = {name for technique in TECHNIQUES.values() for name in evaluation.METRICS_OF[technique.rows]}
    assert measured == set(METRICS)
    assert {evaluation.direction(name) for name in METRICS} == {"minimize", "maximize"}
    with pytest.raises(KeyError):
        evaluation.direction("forgotten")


@pytest.mark.parametrize("name", evaluation.METRICS)
def test_only_a_mean_says_that_it_is_one(name):
    """Scores of single examples are enough to compare means in pairs; those of a corpus metric are not."""
    from sweeper.evaluation.metrics import load_metric

    metric = load_metric(name)
    if name in evaluation.TASK_METRICS:
        texts = ['{"a": 1}', "the cat sat on a mat", "no", "one two three four five six"]
        texts = texts[:1] * 4 if name == "field_match" else texts
        statistics = metric.statistics(['{"a": 2}', "the cat sat on mat", "yes no", "one two three"], texts)
    else:
        statistics = metric.statistics([1.0, 0.5, 2.0, 0.1], [1, 7, 2, 9])
    corpus = metric.aggregate(statistics.sum(axis=0, keepdims=True), len(statistics))[0]
    alone = metric.example_scores(statistics)
    assert alone.shape == (len(statistics),)
    assert metric.is_mean == bool(np.isclose(corpus, alone.mean()))


# Rewards and export formats


def test_every_reward_has_a_function():
    from sweeper.training import rewards

    assert set(rewards.BUILDERS) == set(kinds(Reward))
    for place in rewards.BUILDERS.values():
        file, function = place.split(":")
        assert callable(getattr(import_module(f"sweeper.training.rewards.{file}"), function))


def test_every_export_format_is_on_the_command_line_and_the_dashboard():
    from typer.testing import CliRunner

    from sweeper.cli.main import app
    from sweeper.export import FORMATS
    from sweeper_dashboard.data import exports

    assert {name: each.TITLE for name, each in FORMATS.items()} == exports.FORMATS
    shown = " ".join(CliRunner().invoke(app, ["export", "--help"]).output.split())
    assert f"[{'|'.join(FORMATS)}]" in shown
    assert [each.TITLE for each in FORMATS.values() if f"{each.TITLE}." not in shown] == []


# The unions themselves


@pytest.mark.parametrize(
    ("base", "known"), [(AnyTechnique, TECHNIQUES), (AnyAdapter, ADAPTERS)], ids=["technique", "adapter"]
)
def test_a_class_with_a_kind_is_in_its_union(base, known):
    found, wanting = [base], []
    while found:
        each = found.pop()
        found += each.__subclasses__()
        kind = each.model_fields["kind"].default if "kind" in each.model_fields else None
        if isinstance(kind, str) and each.__module__.startswith("sweeper.") and known.get(kind) is not each:
            wanting.append(each)
    assert wanting == []
