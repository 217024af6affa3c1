"""A study that begins from another one's winner."""

from __future__ import annotations

import json
import re

import pytest

from sweeper.config.trial import Outcome
from sweeper.errors import ModelError, RegistryError
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database
from sweeper.study.resolve import resolve_study
from sweeper.study.run import run_study


@pytest.fixture
def first(study_file):
    """An SFT study on rows whose every answer is the same token, with its winner registered."""
    search = {"n_trials": 2, "space": {"learning_rate": 3e-2, "batch_size": 8, "epochs": 2, "lora_rank": 4}}
    file = study_file("first", shape="same_answer", search=search, evaluation={"metrics": ["perplexity"]})
    return run_study(file).registered


def then(study_file, model="adapter:first", name="then", **parts):
    search = {"n_trials": 1, "space": {"learning_rate": 1e-2, "batch_size": 8, "epochs": 1, "lora_rank": 4}}
    return study_file(
        name, shape="same_preference", technique={"kind": "dpo"}, model=model, **{"search": search, **parts}
    )


def test_a_study_goes_on_from_a_registered_adapter(first, study_file):
    file = then(study_file, evaluation={"metric": "preference_accuracy", "metrics": ["preference_accuracy"]})
    assert [model.found.name for model in resolve_study(file).models.values()] == ["adapter:first@1"]
    assert not Home.current().start("first", 1).exists()  # looking merges nothing
    result = run_study(file, force=True)
    assert Home.current().start("first", 1).is_dir()
    lineage = result.registered.lineage
    assert (lineage.base_model, lineage.built_on) == ("adapter:first@1", ("first@1",))
    with Database.open(Home.current().database, create=False) as database:
        assert database.trials.all("then")[0].outcome is Outcome.COMPLETE
        assert Registry(Home.current(), database).ancestors(result.registered) == ("first@1",)


def test_two_names_of_one_version_are_no_choice(first, study_file):
    margin = {"metric": "preference_margin", "metrics": ["preference_margin"]}
    file = then(study_file, model={"choice": ["adapter:first", "adapter:first@1"]}, evaluation=margin)
    with pytest.raises(ModelError, match="'adapter:first@1' is there 2 times"):
        run_study(file)


def test_its_base_answers_as_the_adapter_it_began_from(first, study_file, tiny_model):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run_study(
        then(study_file, evaluation={"metric": "preference_margin", "metrics": ["preference_margin"]}), force=True
    )
    ids = torch.tensor([[5, 9, 40, 41, 42]])
    merged = AutoModelForCausalLM.from_pretrained(Home.current().start("first", 1), dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    untouched = plain(ids).logits
    adapted = PeftModel.from_pretrained(plain, first.folder)
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-3)
        assert not torch.allclose(merged(ids).logits, untouched, atol=1e-2)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("adapter:frist", RegistryError, "no adapter 'frist' is registered; did you mean 'first'"),
        ("adapter:first@7", RegistryError, "has no version 7"),
        ("adapter:first@newest", RegistryError, "has no version newest; there are: v1 (candidate)"),
        ("adapter:first@", ModelError, "must be adapter:NAME, optionally with @VERSION, @STAGE or @ALIAS"),
    ],
)
def test_what_cannot_be_begun_from(first, study_file, model, error, words):
    with pytest.raises(error, match=re.escape(words)):
        resolve_study(
            then(study_file, model=model, evaluation={"metrics": ["preference_margin"], "metric": "preference_margin"})
        )


def test_a_merged_start_that_changed_is_another_base(first, study_file):
    run_study(
        then(study_file, evaluation={"metric": "preference_margin", "metrics": ["preference_margin"]}), force=True
    )
    from sweeper.errors import StudyStateError
    from sweeper.study.run import resume_study

    config = Home.current().start("first", 1) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 0.1}))
    with pytest.raises(StudyStateError, match=r"the base model in .* is another one now"):
        resume_study("then")
