"""Numbers that are none, that tie, that go backwards, and studies of no trial and of a hundred thousand.

What is tested elsewhere:

======================================================  =====================================================
a diverged trial beside others in one pass              tests/executors/test_executors_packed.py
all trials infeasible, or failed                        tests/study/test_study_run.py
all trials of one outcome, at the seam to Optuna        tests/search/test_search_seam.py
an evaluation that gives nothing; ties                  tests/search/test_search_seam.py
metrics that are no numbers, steps of 2^63              tests/store/test_store_records.py
pages of a study without trials                         tests/dashboard/test_dashboard_pages.py
======================================================  =====================================================
"""

from __future__ import annotations

import json
import math
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hostile_parts import refused, sweeper
from streamlit.testing.v1 import AppTest

from sweeper.config.trial import Outcome
from sweeper.errors import SweeperError
from sweeper.executors.listener import Listener
from sweeper.paths import Home
from sweeper.store import Database, StudyState
from sweeper.study.run import run_study

filled_home = pytest.importorskip("filled_home")

EXECUTORS = ("packed", "inline")
FIXED = {"batch_size": 8, "epochs": 1, "lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.0}


def trials(name: str = "tiny") -> list[Any]:
    with Database.open(Home.current().database, create=False) as database:
        return list(database.trials.all(name))


def answers(name: str) -> None:
    """Ask every command about a study; whatever its numbers are, each answers or refuses in words."""
    for command in ("status", "trials", "best", "orders"):
        for flags in ([], ["--json"]):
            result = sweeper(command, name, *flags)
            if result.exit_code:
                refused(result)
            elif flags:
                json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def pages(name: str, *names: str) -> None:
    app = AppTest.from_file(filled_home.APP, default_timeout=60).run()
    assert not app.exception
    for page in names:
        app.switch_page(f"views/{page}.py")
        app.query_params.update({"study": name})
        app.run()
        assert not app.exception, (page, app.exception)


@pytest.fixture
def broken_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A base model whose every output is NaN."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_loss_that_is_nan_from_the_first_step_ends_every_trial_and_the_study_says_so(
    study_file, broken_model, executor
):
    file = study_file(
        model=str(broken_model), search={"n_trials": 2}, executor={"kind": executor, "device": "cpu", "micro_batch": 8}
    )
    with pytest.raises(SweeperError, match=r"no trial of tiny was completed(.|\n)*2 x diverged"):
        run_study(file)
    assert [(trial.outcome, trial.value) for trial in trials()] == [(Outcome.DIVERGED, None)] * 2
    assert all(trial.steps <= 1 for trial in trials())
    answers("tiny")


def test_where_every_trial_is_pruned_there_is_no_winner_and_the_reason_is_told(study_file):
    file = study_file(search={"n_trials": 2, "pruner": {"kind": "threshold", "upper": 1e-6}})
    message = refused_run(file.path)
    assert "no trial of tiny was completed" in message and "2 x pruned" in message
    with Database.open(Home.current().database, create=False) as database:
        assert database.studies.get("tiny").state is StudyState.FINISHED
    answers("tiny")


def test_where_the_only_trial_failed_there_is_no_winner_and_the_reason_is_told(study_file):
    file = study_file(search={"space": {**FIXED, "learning_rate": 1e-3, "optim": "lomo"}, "n_trials": 1})
    message = refused_run(file.path)
    assert "1 x failed" in message and "lomo" in message
    answers("tiny")


def refused_run(file: Path) -> str:
    """Run a study that ends without a winner at the command line, and return what it said."""
    result = sweeper("run", file)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output and "bug in sweeper" not in result.output
    assert result.stderr.count("error: ") == 1
    return result.stderr


class ClockGoesBack(datetime):
    """The time of day, an hour less once it was put back."""

    put_back = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) - cls.put_back


def test_a_clock_that_goes_back_an_hour_changes_no_budget_and_no_duration(study_file, monkeypatch):
    monkeypatch.setattr(ClockGoesBack, "put_back", timedelta())
    for module in ("sweeper.store.rows", "sweeper.training.trial_output", "sweeper.executors.context"):
        __import__(module)
        monkeypatch.setattr(f"{module}.datetime", ClockGoesBack)

    class PutBack(Listener):
        def trial_reported(self, number: int, step: int, metrics: Any) -> None:
            if (number, step) == (1, 1):
                ClockGoesBack.put_back = timedelta(hours=1)

    search = {"n_trials": 3, "timeout": 3000, "pruner": "none"}
    run_study(study_file(search=search, executor={"kind": "inline", "device": "cpu"}), listener=PutBack(), force=True)
    found = trials()
    assert [trial.outcome for trial in found[:3]] == [Outcome.COMPLETE] * 3
    assert found[1].finished_at < found[1].started_at, "the clock was put back while it trained"
    assert all(0 < trial.train_seconds < 600 for trial in found)
    with Database.open(Home.current().database, create=False) as database:
        assert all(0 <= point.seconds < 600 for point in database.metrics.get("tiny"))
        study = database.studies.get("tiny")
        assert study.ended_at < study.started_at
    answers("tiny")
    pages("tiny", "studies", "study", "trial", "control")
    for section in ("Schedule", "Curves"):
        app = AppTest.from_file(filled_home.APP, default_timeout=60).run()
        app.switch_page("views/study.py")
        app.query_params.update({"study": "tiny", "section": section})
        assert not app.run().exception, section


def test_a_study_of_no_trial_is_answered_and_cannot_be_asked_for(study_file):
    home = Home.current()
    with Database.open(home.database, create=True) as database:
        filled_home.Filler(home, database).study()
    assert "0/6" in sweeper("status").stdout
    assert sweeper("trials", "itn").exit_code == 0
    assert json.loads(sweeper("trials", "itn", "--json").stdout) == []
    refused(sweeper("best", "itn"), "no trial of study 'itn' is complete yet")
    refused(sweeper("compare", "itn:0", "itn:base"), "0")
    answers("itn")
    pages("itn", "study", "trial", "compare", "control", "training_data")
    for command in (("budget", "itn", "--trials", "0"), ("run", study_file().path, "--trials", "0")):
        result = sweeper(*command)
        assert result.exit_code == 2 and "--trials" in result.stderr and "Traceback" not in result.stderr
    file = study_file()
    file.path.write_text(file.text.replace("n_trials: 4", "n_trials: 0"), encoding="utf-8")
    refused(sweeper("run", file.path), "n_trials", "greater than or equal to 1")
