"""A real study whose adapters are kept by policy, and whose files are damaged between its process and the next."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sweeper.cli.main import app
from sweeper.config.trial import Outcome
from sweeper.errors import ArtifactError
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.store import Database
from sweeper.study.run import resume_study, run_study


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def kept():
    return sorted(int(path.parent.name) for path in Home.current().study("tiny").folder.glob("trials/*/adapter"))


def trials():
    with Database.open(Home.current().database, create=False) as database:
        return database.trials.all("tiny")


def test_a_study_keeps_its_best_and_refuses_what_was_damaged(study_file):
    """One study through it all: policy, refused scoring, the doctor's mending, and the scoring without the damaged."""
    file = study_file(search={"n_trials": 6, "confirm": 0, "pruner": "none"}, evaluation={"candidates": 2})
    first = run_study(file, force=True)
    ranked = sorted((t for t in trials() if t.outcome is Outcome.COMPLETE), key=lambda trial: trial.value)
    assert len(ranked) == 6
    assert kept() == sorted(trial.number for trial in ranked[:3])
    assert first.registered is not None
    paths = Home.current().study("tiny")
    second = ranked[1].number
    flip(paths.trial(second).adapter / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match=rf"trial {second} .*adapter_model.safetensors has changed"):
        resume_study("tiny", force=True)
    run = CliRunner()
    refused = run.invoke(app, ["clone", "tiny", str(second), "learning_rate=0.005", "--from-weights"])
    assert refused.exit_code == 2 and "has changed" in refused.stderr
    gone = run.invoke(app, ["clone", "tiny", str(ranked[5].number), "learning_rate=0.005", "--from-weights"])
    assert gone.exit_code == 2 and "removed by the study's keep policy" in gone.stderr
    assert run.invoke(app, ["doctor", "tiny"]).exit_code == 1
    assert run.invoke(app, ["doctor", "tiny", "--repair"]).exit_code == 0
    again = resume_study("tiny", force=True)
    assert set(again.candidates) == {ranked[0].number}
    registered = first.registered.folder / "adapter_model.safetensors"
    flip(registered)
    for command in (
        ["export", "tiny", "--format", "merged", "--out", str(paths.folder / "out")],
        ["run", str(study_file(name="next", model="adapter:tiny").path)],
    ):
        refused = run.invoke(app, command)
        assert refused.exit_code == 2 and "is not as it was registered" in refused.stderr


def test_a_frozen_trial_goes_on_in_a_backup_and_begins_again_where_it_is_damaged(study_file, tmp_path, monkeypatch):
    class Stopping(Listener):
        def __init__(self):
            self.stop, self.notes = StopRequest(), []

        def trial_reported(self, number, step, metrics):
            self.stop.set()

        def note(self, text):
            self.notes.append(text)

    first, then = Stopping(), Stopping()
    search = {"n_trials": 2, "confirm": 0, "pruner": "none"}
    file = study_file(search=search, executor={"kind": "packed", "slots": 2})
    with pytest.raises(Exception, match="sweeper resume"):
        run_study(file, listener=first, stop=first.stop)
    paths = Home.current().study("tiny")
    assert paths.trial(0).is_frozen and paths.trial(1).is_frozen
    copied = CliRunner().invoke(app, ["backup", str(tmp_path / "copy")])
    assert copied.exit_code == 0, copied.output
    flip(paths.trial(0).frozen / "slot.safetensors")
    then.stop.set = lambda: None
    result = resume_study("tiny", listener=then, stop=then.stop, force=True)
    assert result.registered is not None
    assert any("trial 0 begins again: what it was stopped with" in note for note in then.notes)
    ended = {trial.number: (trial.outcome, trial.restarts) for trial in trials()}
    assert ended[0] == (Outcome.INTERRUPTED, None)
    assert ended[2][1] == 0 and ended[1][0] is not Outcome.INTERRUPTED
    values = {trial.number: trial.value for trial in trials()}
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "copy"))
    again = resume_study("tiny", force=True)
    assert [trial.outcome for trial in trials()] == [Outcome.COMPLETE] * 2
    assert [trial.value for trial in trials()] == [values[2], values[1]]
    assert again.registered.folder == tmp_path / "copy" / "adapters" / "tiny" / "v1"
    assert CliRunner().invoke(app, ["doctor", "tiny"]).exit_code == 0


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_trial_that_cannot_begin_from_anothers_weights_costs_only_itself(begin, how):
    from sweeper.executors.inline import InlineExecutor
    from sweeper.files.atomic import discard

    context = begin(search={"n_trials": 1, "confirm": 0}, executor={"kind": "inline"})
    InlineExecutor().run(context)
    values = {"learning_rate": 5e-3, "lora_rank": context.search.values(0)["lora_rank"]}
    context.search.order(1, values, clones=0, initial=0)
    adapter = context.paths.trial(0).adapter
    if how == "damaged":
        flip(adapter / "adapter_model.safetensors")
    else:
        context.database.artifacts.forget("tiny", 0)
        discard(adapter)
    InlineExecutor().run(context)
    ended = context.database.trials.get("tiny", 1)
    assert ended.outcome is Outcome.FAILED
    assert ended.reason.startswith("it cannot begin from the weights of trial 0: ")
    assert ("has changed" if how == "damaged" else "is gone") in ended.reason
