"""A study whose trials have processes of their own, from its file to its verdict."""

from __future__ import annotations

from sweeper.config.trial import Outcome
from sweeper.executors.listener import Listener
from sweeper.paths import Home
from sweeper.store import Database
from sweeper.study.run import run_study


class Notes(Listener):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_study_on_two_processes(study_file):
    notes = Notes()
    study = study_file(
        backend={"kind": "fsdp", "processes": 2},
        search={"n_trials": 1, "confirm": 0, "space": {"learning_rate": 1e-2, "batch_size": 8, "epochs": 1}},
        evaluation={"points": 1, "metrics": ["perplexity"]},
    )
    result = run_study(study, listener=notes, force=True)
    assert "trials run one at a time: with the backend fsdp each trial has its own processes" in notes.notes
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        (trial,) = database.trials.all("tiny")
        assert trial.outcome is Outcome.COMPLETE
        assert trial.steps == 3
        assert len(database.metrics.get("tiny", number=0, name="loss")) == 3
    assert result.registered is not None
    assert '"processes":2' in home.study("tiny").trial(0).spec.read_text().replace(" ", "")
