"""Every example study, run to a registered winner and its export: on a tiny model all, on SmolLM2 the main ones."""

from __future__ import annotations

import pytest
import tiny
from shrunk import STUDIES, shrunk

from sweeper.config.adapter import ADAPTERS
from sweeper.config.loader import PipelineFile, load_study
from sweeper.config.technique import TECHNIQUES
from sweeper.export.writer import export
from sweeper.paths import Home
from sweeper.registry.provenance import export_source
from sweeper.store import Database
from sweeper.study.pipeline import run_pipeline
from sweeper.study.run import run_study

pytestmark = pytest.mark.studies

FILES = sorted(STUDIES.glob("*.yaml"))
NEEDS_A_GPU = {"unsloth"}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, tiny_model):
    larger = tiny.build_model(tmp_path_factory.mktemp("models") / "larger", hidden_size=128)
    return (tiny_model, larger)


def run(file, force=True):
    if isinstance(file, PipelineFile):
        return run_pipeline(file, force=force)
    return run_study(file, force=force)


OFTEN = ("quickstart", "dpo", "grpo", "reward", "rlhf", "prefix", "smallest-model")
"""The others differ from these by a technique or an adapter, each of which has tests of its own."""
RUN = [
    pytest.param(path, marks=() if path.stem in OFTEN else pytest.mark.long, id=path.stem)
    for path in FILES
    if path.stem not in NEEDS_A_GPU
]


@pytest.mark.parametrize("path", RUN)
def test_a_study_ends_with_a_registered_winner_and_its_export(path, tiny_models, tmp_path):
    registered = run(shrunk(path, tiny_models)).registered
    with Database.open(Home.current().database, create=False) as database:
        exported = export(export_source(Home.current(), database, registered), "adapter", tmp_path / "out")
    assert exported.paths


def test_every_technique_and_adapter_has_a_study():
    studies = [load_study(path) for path in FILES]
    single = [study.config for study in studies if not isinstance(study, PipelineFile)]
    assert {config.technique.kind for config in single} == set(TECHNIQUES)
    adapters = {each.adapter.kind for config in single for each in config.adapters.values()}
    assert adapters == set(ADAPTERS)
    assert any(isinstance(study, PipelineFile) for study in studies)
