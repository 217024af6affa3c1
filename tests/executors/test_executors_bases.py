"""Base models of several kinds in one study: loaded when needed, one at a time."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiny

from sweeper.executors import base_models as bases
from sweeper.executors.base_models import BaseModelCache
from sweeper.executors.lifecycle.trial_spec import hyperparameters, specification
from sweeper.search.candidate import Candidate
from sweeper.store.records import TrialKind


@pytest.fixture
def context(begin, tiny_model, tmp_path):
    other = tiny.build_model(tmp_path / "other", head_dim=32)
    rates = [{"kind": "lora", "space": {"lora_dropout": 0.1}}, {"kind": "lora", "rslora": True}, "qlora"]
    return begin(model={"choice": [str(tiny_model), str(other)]}, adapter={"choice": rates})


def candidate(context, model, adapter, number=0, **more):
    chosen = {"model": list(context.models)[model], "adapter": adapter, "learning_rate": 1e-3, **more}
    return Candidate(number, chosen, 7, TrialKind.SAMPLED)


def test_a_specification_is_of_the_chosen_alternatives(context):
    spec = specification(context, candidate(context, 1, "lora rslora=True", **{"lora rslora=True.lora_rank": 2}))
    assert spec.adapter.rslora
    assert spec.model_folder.name == "other"
    assert spec.model == context.model_of(spec).config
    assert (spec.hyperparameters.lora_rank, spec.hyperparameters.trl) == (2, {})
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_the_scope_of_the_chosen_alternative_is_taken_off():
    chosen = {"adapter": "qlora quantization=fp4", "model": "./a.b", "qlora quantization=fp4.learning_rate": 2e-3}
    found = hyperparameters({**chosen, "epochs": 2, "lora.optim": "adafactor"})
    assert (found.learning_rate, found.epochs, found.trl) == (2e-3, 2, {"optim": "adafactor"})


def test_one_base_is_in_memory_and_is_kept_while_it_is_needed(context, monkeypatch):
    loads = []
    load_base = bases.load_base
    monkeypatch.setattr(bases, "load_base", lambda *args: loads.append(args[2].kind) or load_base(*args))
    kept, stages = BaseModelCache(), []
    monkeypatch.setattr(context.listener, "stage", lambda text, fraction=None: stages.append(text), raising=False)
    specs = [specification(context, candidate(context, *of)) for of in ((0, "lora"), (0, "lora rslora=True"))]
    first = kept.of(context, specs[0])
    assert kept.of(context, specs[1]) is first  # other options of the adapter, the same weights
    gone = weakref.ref(first.model)
    del first
    quantised = kept.of(context, specification(context, candidate(context, 0, "qlora")))
    assert quantised.model.is_loaded_in_4bit
    gc.collect()
    assert gone() is None
    del quantised
    assert kept.of(context, specification(context, candidate(context, 1, "lora"))).model.config.head_dim == 32
    assert loads == ["lora", "qlora", "lora"]
    assert [text.rsplit("/", 1)[-1] for text in stages][-1] == "other"
