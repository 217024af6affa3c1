"""Whole studies that choose between base models or adapters, on tiny models of two sizes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.export import export
from sweeper.models.facts import fingerprint, read_facts
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.provenance import export_source
from sweeper.store import Database
from sweeper.study.run import resume_study, run_study

SPACE = {"batch_size": 8, "epochs": 4, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "weight_decay": 0.0}
LEARNABLE = {
    "shape": "same_answer",
    "search": {"space": {**SPACE, "learning_rate": 2e-2, "warmup_ratio": 0.0}, "n_trials": 4, "confirm": 0},
    "evaluation": {"metric": "exact_match", "metrics": ["exact_match"], "candidates": 3},
}


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """Names of the small and the large one."""
    large = tiny.build_model(tmp_path_factory.mktemp("large") / "large", head_dim=32)
    return str(tiny_model), str(large)


def enqueue_both(models):
    return {"enqueue": [{"model": name} for name in models], "n_trials": 3}


def with_parts(**parts):
    return {**LEARNABLE, **{name: {**LEARNABLE.get(name, {}), **part} for name, part in parts.items()}}


def best(name="tiny"):
    result = CliRunner().invoke(app, ["best", name, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_smallest_model_that_meets_the_goal_wins(study_file, models, tmp_path):
    small, large = models
    parts = with_parts(search=enqueue_both((large, small)), evaluation={"goal": 0.5})
    verdict = run_study(study_file(model={"choice": [large, small]}, **parts))
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        trials = {trial.number: trial for trial in database.trials.all("tiny")}
        assert {trial.parameters["model"] for trial in trials.values()} == set(models)
        assert [trial.outcome for trial in trials.values()] == [Outcome.COMPLETE] * 3
        for trial in trials.values():
            facts = read_facts(Path(trial.base_model))
            assert trial.total_parameters == facts.parameters + facts.lora_parameters(4)
            assert trial.base_model_fingerprint == fingerprint(Path(trial.base_model))
            assert trial.latency_ms > 0
        used = {trials[number].base_model for number in verdict.candidates}  # the large one only if it is as quick
        won = trials[verdict.trial]
        assert won.base_model == small
        assert verdict.goal.smallest == verdict.trial
        version = verdict.registered
        assert (version.lineage.base_model, version.lineage.base_model_fingerprint) == (small, fingerprint(Path(small)))
        study = database.studies.get("tiny")
        assert study.base_model == f"{large}, {small}"
        scored = {(e.subject, e.base) for e in database.evaluations.all("tiny")}
        assert {(f"base model {name}", name) for name in used} <= scored
        assert (f"trial {verdict.trial}", small) in scored
        assert "goal" in {event.kind for event in database.events.all("tiny")}
        source = export_source(home, database, version)
    assert (source.base.folder, source.base.name) == (Path(small), small)
    assert {score.metric for score in source.scores} == {"exact_match"}
    written = export(source, "adapter", tmp_path / "exported")
    assert "verified" in " ".join(written.notes)
    assert verdict.bases.keys() == {f"base model {name}" for name in used}
    assert "smallest model that meets the goal" in verdict.report.read_text()
    found = best()
    assert found["trial"] == verdict.trial
    assert (found["goal"]["met"], found["goal"]["smallest"]) == (True, verdict.trial)
    assert all(point["meets_goal"] and point["parameters"] for point in found["front"] if point["score"] is not None)
    assert [p["model"] for p in found["front"] if p["trial"] == verdict.trial] == [small]
    shown = CliRunner().invoke(app, ["best", "tiny"])
    assert (
        "the smallest model that meets the goal (exact_match of at least 0.5 on the test split) is trial"
        in shown.stdout
    )
    assert "front: no other trial" in shown.stdout


@pytest.mark.long
def test_where_no_model_meets_the_goal_the_best_wins_and_all_say_so(study_file, models):
    parts = with_parts(search={**enqueue_both(models), "n_trials": 2}, evaluation={"goal": 1.0})
    parts["shape"] = "prompt_completion"  # too much for any of them
    file = study_file(model={"choice": list(models)}, **parts)
    verdict = run_study(file)
    assert verdict.goal.smallest is None and verdict.goal.nearest == verdict.trial
    assert verdict.goal.miss == pytest.approx(1 - verdict.candidates[verdict.trial].metrics["exact_match"].value)
    assert verdict.registered is None
    assert "No model meets the goal" in verdict.report.read_text()
    found = best()
    assert found["goal"]["met"] is False
    assert found["goal"]["text"].startswith("no model meets the goal: exact_match of at least 1")
    assert not any(point["meets_goal"] for point in found["front"])
    result = CliRunner().invoke(app, ["resume", "tiny", "--force"])
    assert result.exit_code == 0, result.output
    assert "no model meets the goal" in result.stdout


def test_with_one_model_the_winner_is_held_against_the_goal(study_file):
    verdict = run_study(study_file(**with_parts(search={"n_trials": 1}, evaluation={"goal": 0.5})))
    assert verdict.goal.met and verdict.goal.contenders[0].number == verdict.trial == 0
    assert best()["front"] == []
    assert best()["goal"]["text"].startswith("goal met: exact_match of at least 0.5 on the test split, by trial 0")


def adapter_choice(**search):
    own = [
        {"kind": "lora", "space": {"learning_rate": [1e-2, 2e-2]}},
        {"kind": "qlora", "space": {"learning_rate": {"low": 1e-2, "high": 3e-2, "log": True}, "lora_rank": [2, 4]}},
    ]
    space = {name: value for name, value in SPACE.items() if name != "lora_rank"} | {"warmup_ratio": 0.0}
    return {"adapter": {"choice": own}, "space": space, **search}


@pytest.fixture
def adapters(study_file, tmp_path):
    """Write a study that chooses between LoRA and QLoRA, each with ranges of its own."""

    def write(name="tiny", **search):
        import yaml

        from sweeper.config.loader import load_study

        parts = adapter_choice(**search)
        file = study_file(name=name, adapter=parts.pop("adapter"), **with_parts())
        study = yaml.safe_load(file.text)
        study["search"] = {"n_trials": 5, "confirm": 0, "pruner": "none", "known_good": False, **parts}
        file.path.write_text(yaml.safe_dump(study))
        return load_study(file.path)

    return write


BOTH = [{"adapter": "lora"}, {"adapter": "qlora"}]


@pytest.mark.long
def test_adapters_are_compared_each_on_its_own_base(adapters):
    verdict = run_study(adapters(enqueue=BOTH, n_trials=4))
    with Database.open(Home.current().database, create=False) as database:
        trials = {trial.number: trial for trial in database.trials.all("tiny")}
        assert {trial.parameters["adapter"] for trial in trials.values()} == {"lora", "qlora"}
        for trial in trials.values():
            if trial.parameters["adapter"] == "lora":
                assert trial.parameters["learning_rate"] in (1e-2, 2e-2)
                assert trial.parameters["lora_rank"] in (8, 16, 32, 64)
            else:
                assert 1e-2 <= trial.parameters["learning_rate"] <= 3e-2 and trial.parameters["lora_rank"] in (2, 4)
            facts = read_facts(Path(trial.base_model))
            rank = trial.parameters["lora_rank"]
            assert trial.total_parameters == facts.parameters + facts.lora_parameters(rank)  # packed weights too
        held = {"lora": "dense", "qlora": "nf4"}
        for evaluation in database.evaluations.all("tiny"):
            if evaluation.number is not None:
                assert evaluation.base == held[trials[evaluation.number].parameters["adapter"]]
        used = {held[trials[number].parameters["adapter"]] for number in verdict.candidates}
        assert verdict.bases.keys() == {f"base model {base}" for base in used}
        (version,) = Registry(Home.current(), database).all("tiny")
        assert version.lineage.hyperparameters["adapter"] == trials[verdict.trial].parameters["adapter"]


@pytest.mark.long
def test_a_killed_choice_goes_on_as_if_it_had_not_been(adapters, tmp_path, monkeypatch):
    through, killed = Home(tmp_path / "through"), Home(tmp_path / "killed")
    file = adapters(enqueue=BOTH)
    run_study(file, home=through)
    monkeypatch.setenv("SWEEPER_HOME", str(killed.folder))
    command = [sys.executable, str(Path(__file__).with_name("killed_study.py")), str(file.path), "1", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    resume_study("tiny", home=killed)

    def ended(home):
        with Database.open(home.database, create=False) as database:
            trials = [t for t in database.trials.all("tiny") if t.outcome is not Outcome.INTERRUPTED]
        return [(t.parameters, t.seed, t.value, t.adapter_sha256, t.base_model_fingerprint) for t in trials]

    assert ended(killed) == ended(through)
    assert len(ended(killed)) == 5


def test_models_are_compared_each_with_its_own_base_and_none_may_change(study_file, models, tmp_path):
    copy = str(tiny.build_model(tmp_path / "copy", head_dim=32))
    names = [models[0], copy]
    search = {**enqueue_both(names), "n_trials": 2, "pruner": "none"}
    verdict = run_study(study_file(model={"choice": names}, **with_parts(search=search)))
    assert verdict.bases.keys() == {f"base model {name}" for name in names}
    with Database.open(Home.current().database, create=False) as database:
        for trial in database.trials.all("tiny"):
            assert verdict.comparison.base_of[f"trial {trial.number}"] == f"base model {trial.base_model}"
    tiny.build_model(Path(copy))
    with pytest.raises(StudyStateError, match="copy is another one now"):
        resume_study("tiny")
    resolved = Home.current().study("tiny").resolved
    resolved.write_text('{"model_folder": "x"}')
    with pytest.raises(StudyStateError, match="of another version of sweeper"):
        resume_study("tiny")
