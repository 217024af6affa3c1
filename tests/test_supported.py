"""Every combination of technique, adapter and backend: it works, and is run, or is refused with its message."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny
from support_matrix import ADAPTERS, BACKENDS, TECHNIQUES, reason, tables

from sweeper.compatibility import Case, refusals
from sweeper.config.backend import TRL, DeepSpeed, Unsloth
from sweeper.config.choice import loaded_as
from sweeper.config.combinations import refusal
from sweeper.config.model import ModelConfig
from sweeper.config.trial import Outcome
from sweeper.errors import UserError

GUIDE = Path(__file__).parents[1] / "studies" / "README.md"
SHAPES = {"answers": "prompt_completion", "pairs": "preference", "labelled": "unpaired", "prompts": "prompt"}
SHORT = {"max_length": 64}
CELLS = [
    pytest.param(technique, name, backend, id=f"{technique.kind}-{name}-{backend.kind}{getattr(backend, 'stage', '')}")
    for technique in TECHNIQUES
    for name in ADAPTERS
    for backend in BACKENDS
]
WORKS = [cell for cell in CELLS if reason(cell.values[0], ADAPTERS[cell.values[1]], cell.values[2]) is None]
REFUSED = [cell for cell in CELLS if cell not in WORKS]
WITH_TRL = [
    pytest.param(*cell.values, id=cell.id, marks=pytest.mark.long)
    if cell.values[0].kind != "sft" and cell.values[1] not in ("lora", "qlora, nf4")
    else cell
    for cell in WORKS
    if cell.values[2] == TRL()
]
"""Techniques treat adapters alike: SFT is run with all of them every time, the others with two."""


@pytest.fixture(scope="module")
def base_of(tiny_model):
    """Bases by what changes their weights; that trials leave them as they were is tested elsewhere."""
    loaded = {}

    def of(adapter, head):
        from sweeper.training.base_model import load_base

        key = (loaded_as(adapter), head)
        if key not in loaded:
            loaded[key] = load_base(tiny_model, ModelConfig(name="tiny"), adapter, "cpu", head)
        return loaded[key]

    return of


@pytest.mark.parametrize(("technique", "name", "backend"), WITH_TRL)
def test_what_works_with_trl(base_of, tiny_model, tmp_path, technique, name, backend):
    """It trains, is evaluated, is kept, and is loaded again to the same evaluation."""
    from sweeper.evaluation.scorer import task_metric
    from sweeper.training.trial import train_trial

    adapter = ADAPTERS[name]
    short = {**SHORT, "max_completion_length": 3} if technique.rows == "prompts" else SHORT
    spec = tiny.trial_spec(
        tiny_model,
        tmp_path,
        shape=SHAPES[technique.rows],
        adapter=adapter,
        technique=technique.model_copy(update=short),
        rows=8,
        learning_rate=1e-3,
        epochs=1.0,
        points=1,
        metric=technique.metric,
        metrics=technique.metrics,
        max_new_tokens=3,
        trl={"num_generations": 2} if technique.rows == "prompts" else {},
    )
    base = base_of(adapter, technique.head)
    evaluate = task_metric(base, spec.validation, spec.evaluation, spec.technique)
    result = train_trial(spec, base, tiny.Curve(), 8, evaluate)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert all(math.isfinite(value) for value in result.metrics.values())
    if evaluate is not None:
        with base.with_adapter(spec.folder / "adapter") as model:
            again = evaluate(model)
        assert again == pytest.approx({key: result.metrics[key] for key in again}, abs=2e-2)


@pytest.mark.parametrize(("technique", "name", "backend"), REFUSED)
def test_what_is_refused_says_so_before_anything_is_loaded(study_file, technique, name, backend):
    from sweeper.study.resolve import resolve_study

    with pytest.raises((UserError, ValueError)) as refused:
        resolve_study(
            study_file(
                shape=SHAPES[technique.rows],
                technique=technique.model_dump(mode="json") | SHORT,
                adapter=ADAPTERS[name].model_dump(mode="json", exclude_defaults=True) | {"kind": ADAPTERS[name].kind},
                backend=backend.model_dump(mode="json"),
                model="nowhere/at-all",
                search={"space": {"batch_size": 8}},
                evaluation={"metric": technique.metric, "metrics": list(technique.metrics)},
            )
        )
    case = Case(technique, ADAPTERS[name], backend, ModelConfig(name="nowhere/at-all"), "cpu")
    assert (refusal(technique, ADAPTERS[name]) or next(refusals(case))) in str(refused.value)


@pytest.mark.parametrize(
    ("technique", "name", "backend"), [cell for cell in WORKS if isinstance(cell.values[2], Unsloth | DeepSpeed)]
)
def test_what_needs_a_gpu_or_a_part_that_is_not_here(study_file, monkeypatch, technique, name, backend):
    """Unsloth is refused on the CPU, DeepSpeed where it is not installed; runs are tested with their parts."""
    from sweeper import compatibility as support
    from sweeper.study.resolve import resolve_study

    monkeypatch.setattr(support, "find_spec", lambda module: None)
    adapter = ADAPTERS[name].model_dump(mode="json", exclude_defaults=True) | {"kind": ADAPTERS[name].kind}
    with pytest.raises(UserError, match=r"needs a CUDA device|not installed here"):
        resolve_study(study_file(adapter=adapter, backend=backend.model_dump(mode="json")))


def test_the_guide_has_the_tables():
    assert tables() in GUIDE.read_text(encoding="utf-8"), "print them with python -m tests.support_matrix"
