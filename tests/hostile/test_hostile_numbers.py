"""Numbers that are none, that tie, that go backwards, and studies of no trial and of a hundred thousand.

What is tested elsewhere:

======================================================  =====================================================
a diverged trial beside others in one pass              tests/executors/test_executors_packed.py
all trials infeasible, or failed                        tests/run/test_run_study.py
all trials of one outcome, at the seam to Optuna        tests/search/test_search_seam.py
an evaluation that gives nothing; ties                  tests/search/test_search_seam.py
metrics that are no numbers, steps of 2^63              tests/store/test_store_records.py
pages of a study without trials                         tests/dashboard/test_dashboard_pages.py
======================================================  =====================================================
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hostile_parts import refused, sweeper
from streamlit.testing.v1 import AppTest

from sweeper.config.trial import Outcome
from sweeper.errors import SweeperError
from sweeper.executors.base import Silent
from sweeper.paths import Home
from sweeper.run import run_study
from sweeper.store import Database, StudyState

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


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_loss_that_explodes_later_ends_its_trial_alone(study_file, executor):
    space = {**FIXED, "epochs": 2, "learning_rate": 1e-2, "lora_alpha": [4, 1e30]}  # no bound: it only scales
    enqueue = [{"lora_alpha": 4}, {"lora_alpha": 1e30}]
    search = {"space": space, "n_trials": 2, "enqueue": enqueue, "pruner": "none"}
    verdict = run_study(
        study_file(search=search, executor={"kind": executor, "device": "cpu", "micro_batch": 8}), force=True
    )
    good, bad = sorted(trials(), key=lambda trial: trial.parameters["lora_alpha"])
    assert (good.outcome, bad.outcome, bad.value) == (Outcome.COMPLETE, Outcome.DIVERGED, None)
    assert 1 <= bad.steps < bad.total_steps
    assert verdict.trial == good.number
    answers("tiny")


def test_a_metric_that_never_changes_ties_all_trials_and_the_first_wins(study_file):
    file = study_file(
        search={"space": {**FIXED, "learning_rate": [1e-9, 1e-8, 1e-7]}, "n_trials": 3},
        evaluation={"metric": "exact_match", "metrics": ["exact_match"], "points": 1},
    )
    verdict = run_study(file)
    assert {trial.value for trial in trials() if trial.outcome is Outcome.COMPLETE} == {0.0}
    assert verdict.registered is None and not verdict.comparison.beats_base
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
    for module in ("sweeper.store.rows", "sweeper.training.results", "sweeper.executors.base"):
        __import__(module)
        monkeypatch.setattr(f"{module}.datetime", ClockGoesBack)

    class PutBack(Silent):
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


def test_a_study_under_way_has_no_negative_time_left_where_the_clock_went_back():
    from sweeper_dashboard.data import studies

    home = Home.current()
    with Database.open(home.database, create=True) as database:
        filler = filled_home.Filler(home, database)
        filler.study()
        filler.trial(0, value=1.5)
        filler.trial(1, None)
        database.studies.set_state("itn", StudyState.RUNNING)
        later = datetime.now(UTC) + timedelta(hours=1)
        with closing(sqlite3.connect(home.database)) as connection, connection:
            connection.execute("UPDATE sweeper_studies SET started_at = ?", (f"{later:%Y-%m-%d %H:%M:%S.%f}",))
            connection.execute("UPDATE sweeper_trials SET started_at = ?", (f"{later:%Y-%m-%d %H:%M:%S.%f}",))
        with filler.held():
            (standing,) = studies.studies()
    assert standing.eta_s is not None and standing.eta_s >= 0


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
    pages("itn", "study", "trial", "compare", "control", "rows")
    for command in (("budget", "itn", "--trials", "0"), ("run", study_file().path, "--trials", "0")):
        result = sweeper(*command)
        assert result.exit_code == 2 and "--trials" in result.stderr and "Traceback" not in result.stderr
    file = study_file()
    file.path.write_text(file.text.replace("n_trials: 4", "n_trials: 0"), encoding="utf-8")
    refused(sweeper("run", file.path), "n_trials", "greater than or equal to 1")


MANY = 100_000
MOST_SECONDS = 120
MOST_MIB = 600


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a study of 100,000 trials."""
    home = Home(tmp_path_factory.mktemp("large") / "home")
    with Database.open(home.database, create=True) as database:
        filler = filled_home.Filler(home, database)
        filler.study()
        for number, value in enumerate((1.5, 1.2)):
            filler.trial(number, value=value)
            filler.evaluate(number, value / 2)
        filler.evaluate(None, 0.1)
    with closing(sqlite3.connect(home.database)) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(sweeper_trials)")]
        same = ", ".join(name for name in names if name not in ("id", "number", "value", "parameters_json", "changed"))
        connection.execute(
            f"""
            WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY - 1})
            INSERT INTO sweeper_trials (id, number, value, changed, parameters_json, {same})
            SELECT i + 1, i, 1.3 + (i * 7919 % 100003) / 100003.0, i,
                json_set(parameters_json, '$.learning_rate', (1 + i * 7919 % 100003) / 1e8), {same}
            FROM n, (SELECT parameters_json, {same} FROM sweeper_trials WHERE number = 1)
            """
        )
    yield home
    shutil.rmtree(home.folder)


MEASURED = """
import resource, sys
from sweeper.cli.main import app
try:
    app(prog_name="sweeper")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "due"),
    [
        (("status",), "100000/6"),
        (("status", "itn", "--json"), '"complete": 100000'),
        (("trials", "itn"), "99,000 earlier trials are left out"),
        (("compare", "itn:0", "itn:1", "itn:99999"), "itn:99999"),
        (("orders", "itn"), "nothing was asked"),
    ],
)
def test_a_hundred_thousand_trials_are_answered_in_bounded_time_and_memory(large, command, due):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        env={**os.environ, "SWEEPER_HOME": str(large.folder)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert due in done.stdout and len(done.stdout) < 1_000_000
    assert int(done.stderr.split()[-1]) < MOST_MIB, f"{done.stderr} MiB"
    assert time.monotonic() - begun < MOST_SECONDS


def test_a_hundred_thousand_trials_are_listed_as_json_without_being_held(large):
    """Read as it comes, a line a trial; what writes it never holds them all."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURED, "trials", "itn", "--json"],
        env={**os.environ, "SWEEPER_HOME": str(large.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines, last = 0, ""
    for line in process.stdout:
        lines, last = lines + 1, line if line.startswith("{") else last
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert lines == MANY + 2 and json.loads(last)["number"] == MANY - 1
    assert int(said.split()[-1]) < 250


def test_a_million_reports_of_a_trial_are_shown_thinned():
    home = Home.current()
    with Database.open(home.database, create=True) as database:
        filled_home.Filler(home, database).whole()
    with closing(sqlite3.connect(home.database)) as connection, connection:
        connection.execute(
            """
            WITH RECURSIVE n(i) AS (SELECT 7 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
            INSERT INTO sweeper_metrics (trial_id, step, name, value) SELECT 1, i, 'loss', 1.0 / i FROM n
            """
        )
        connection.execute("UPDATE sweeper_trials SET steps = 1000000, total_steps = 1000000 WHERE id = 1")
    app = AppTest.from_file(filled_home.APP, default_timeout=MOST_SECONDS).run()
    app.switch_page("views/trial.py")
    app.query_params.update({"study": "itn", "trial": "0", "section": "Curves"})
    begun = time.monotonic()
    app.run()
    assert not app.exception, app.exception
    drawn = [len(chart.proto.spec) for chart in app.get("plotly_chart")]
    assert drawn and sum(drawn) < 3_000_000, drawn
    assert time.monotonic() - begun < MOST_SECONDS
    assert sweeper("trials", "itn").exit_code == 0


def test_a_report_of_five_megabytes_is_cut_and_an_order_of_five_megabytes_refused():
    home = Home.current()
    with Database.open(home.database, create=True) as database:
        filler = filled_home.Filler(home, database)
        filler.study()
        filler.trial(0, Outcome.FAILED, reason="x" * 5_000_000)
        assert len(database.trials.get("itn", 0).reason) == 2_000
    assert len(sweeper("trials", "itn").stdout) < 100_000
    before = home.database.read_bytes()
    said = refused(sweeper("enqueue", "itn", f"learning_rate={'1' * 5_000_000}"))
    assert len(said) < 2_000
    said = refused(sweeper("enqueue", "itn", f"{'x' * 5_000_000}=1"))
    assert len(said) < 2_000
    said = refused(sweeper("status", "x" * 5_000_000))
    assert len(said) < 2_000
    assert home.database.read_bytes() == before
