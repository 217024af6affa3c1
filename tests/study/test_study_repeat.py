"""A trial as a study file of its own: it is accepted as it stands, and runs the same configuration on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sweeper.cli.main import main
from sweeper.config.loader import load_study
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.provenance import export_source
from sweeper.store import Database, OrderKind
from sweeper.study.orders import give
from sweeper.study.reproduce import study_file_of
from sweeper.study.run import resume_study, run_study


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["sweeper", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code or 0


def test_a_trial_runs_again_from_its_own_file_and_its_pruning_is_recorded(study_file, tmp_path, monkeypatch, capsys):
    home = Home.current()
    space = {"learning_rate": [1e-4, 3e-2], "lora_rank": [2, 4], "batch_size": 8, "epochs": 2, "rslora": [True, False]}
    space |= {"target_modules": [["q_proj", "v_proj"], "all-linear"], "adam_beta2": [0.95, 0.99]}
    search = {"space": space, "n_trials": 6, "confirm": 0.2}
    run_study(study_file(search=search, executor={"kind": "inline"}))
    with Database.open(home.database, create=False) as database:
        study, trials = database.studies.get("tiny"), database.trials.all("tiny")
        for trial in trials:
            decisions = database.decisions.of("tiny", trial.number)
            assert any(decision.pruned for decision in decisions) == (trial.outcome is Outcome.PRUNED)
        texts = {trial.number: study_file_of(home, database, "tiny", trial.number) for trial in trials}
    assert Outcome.PRUNED in [trial.outcome for trial in trials], "else there was nothing to record"
    files = {number: tmp_path / f"again-{number}.yaml" for number in texts}
    for number, text in texts.items():
        files[number].write_text(text, encoding="utf-8")
        config = load_study(files[number]).config
        assert (config.name, config.search.n_trials) == (f"tiny-trial-{number}", 1)
    last = trials[-1]
    assert command(monkeypatch, "check", str(files[last.number]), "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    run_study(load_study(files[last.number]))
    with Database.open(home.database, create=False) as database:
        (again,) = database.trials.all(f"tiny-trial-{last.number}")
        assert again.parameters == last.parameters and again.base_model_fingerprint == last.base_model_fingerprint
        assert database.studies.get(f"tiny-trial-{last.number}").data_sha256 == study.data_sha256


def test_where_a_trials_weights_began_is_told_everywhere(study_file, tmp_path, monkeypatch, capsys):
    home = Home.current()
    search = {"space": {"learning_rate": [1e-3, 1e-2], "batch_size": 8, "epochs": 1, "lora_rank": 2}}
    run_study(study_file(search={**search, "n_trials": 1, "confirm": 0}, executor={"kind": "inline"}), force=True)
    with Database.open(home.database, create=False) as database:
        asked = {"changes": {"learning_rate": 1e-3}, "from_weights": True}
        give(home, database, "tiny", OrderKind.CLONE, actor="ada", number=0, data=asked)
        resume_study("tiny", force=True)
        anew, continued = (study_file_of(home, database, "tiny", number) for number in (0, 1))
        registry = Registry(home, database)
        source = home.study("tiny").trial(1).adapter
        version = registry.register("went-on", source, study="tiny", trial=1)
        plain = registry.register("plain", home.study("tiny").trial(0).adapter, study="tiny", trial=0)
        export = export_source(home, database, version)
    assert "repeats trial 0 but for its randomness" in anew and "not a repetition" not in anew
    assert "not a repetition: trial 1 started from the weights of trial 0, this run from the base alone" in continued
    assert "but for its randomness" not in continued
    (tmp_path / "again.yaml").write_text(continued, encoding="utf-8")
    assert load_study(tmp_path / "again.yaml").config.search.n_trials == 1
    assert (version.lineage.initial_trial, plain.lineage.initial_trial) == (0, None)
    assert export.spec.initial_trial == 0
    monkeypatch.setenv("COLUMNS", "300")
    assert command(monkeypatch, "adapters", "show", "went-on") == 0
    assert "the weights of trial 0" in capsys.readouterr().out
    assert command(monkeypatch, "adapters", "show", "plain") == 0
    assert "the weights of trial" not in capsys.readouterr().out


def test_without_its_files_a_trial_cannot_be_written(begin):
    begin()
    with (
        Database.open(Home.current().database, create=False) as database,
        pytest.raises(StudyStateError, match="has no trial 7"),
    ):
        study_file_of(Home.current(), database, "tiny", 7)


def test_parts_of_choices_and_words_that_yaml_would_misread_are_kept(tmp_path: Path):
    from sweeper.config.single import single_study
    from sweeper.config.study import StudyConfig

    config = StudyConfig.model_validate(
        {
            "name": "choices",
            "model": {"choice": ["smollm2-135m", "./other"]},
            "data": {"train": "rows.jsonl", "columns": {"prompt": "yes"}},
            "technique": {"kind": "dpo"},
            "adapter": {"choice": ["lora", {"kind": "ia3"}]},
            "evaluation": {"goal": 0.9},
        }
    )
    rows = {split: tmp_path / f"{split}.jsonl" for split in ("train", "validation", "test")}
    base = {"learning_rate": 1e-3, "batch_size": 4, "epochs": 1.0, "warmup_steps": None, "warmup_ratio": None}
    base |= {"lr_scheduler": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0, "trl": {"beta": 0.2}}
    text = single_study(config, 3, {**base, "adapter": "ia3", "model": "./other"}, rows=rows, model_folder=tmp_path)
    (file := tmp_path / "f.yaml").write_text(text)
    found = load_study(file).config
    assert found.adapter.kind == "ia3" and found.model.name == str(tmp_path) and not found.evaluation.objectives
    space = yaml.safe_load(text)["search"]["space"]
    assert space["beta"] == 0.2 and space["warmup_ratio"] == 0.0 and "warmup_steps" not in space
    assert "lora_rank" not in space
