"""The main example studies on SmolLM2 itself, one trial each: what comes out is better than what they began from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shrunk import STUDIES

from sweeper.config.loader import PipelineFile, load_study
from sweeper.config.study import StudyConfig
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database
from sweeper.study.pipeline import run_pipeline
from sweeper.study.run import run_study

pytestmark = [pytest.mark.studies, pytest.mark.pretrained]


def one_trial(file):
    """A study file as it is, but with one trial in every search, on the CPU."""
    if isinstance(file, PipelineFile):
        return replace(file, stages={stage: one_trial(study) for stage, study in file.stages.items()})
    data = file.config.model_dump(exclude_unset=True)
    data["search"] |= {"n_trials": 1, "confirm": 0, "known_good": True}
    data["executor"] = {"device": "cpu"}
    return replace(file, config=StudyConfig.model_validate(data))


def gained(verdict):
    """By how much the winner beats what it began from, at the least: the lower end of the interval."""
    assert verdict.registered is not None
    comparison = verdict.comparison
    return comparison.to_base[comparison.winner][comparison.metric].interval.low


@pytest.mark.parametrize("name", ["lora", pytest.param("dpo", marks=pytest.mark.long)])
def test_a_study_beats_the_model_it_began_from(smollm2, name):
    assert gained(run_study(one_trial(load_study(STUDIES / f"{name}.yaml")))) > 0


@pytest.mark.long
def test_a_policy_beats_the_supervised_model_it_began_from(smollm2):
    """Every stage must find something better, or the next one has nothing to begin from and the study ends."""
    verdict = run_pipeline(one_trial(load_study(STUDIES / "rlhf.yaml")))
    assert gained(verdict) > 0
    with Database.open(Home.current().database, create=False) as database:
        chain = Registry(Home.current(), database).ancestors(verdict.registered)
    assert set(chain) == {"rlhf-sft@1", "rlhf-reward@1"}
