"""The whole flow on the tiny model: from a study file to a verdict, a report and a registered adapter."""

from __future__ import annotations

import hashlib
import json

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.config.trial import Outcome
from sweeper.errors import DataError, ModelNotFoundError, StudyInterrupted, StudyStateError, SweeperError
from sweeper.evaluation.comparison import FEWEST_EXAMPLES
from sweeper.executors import micro_batches
from sweeper.executors.listener import Listener
from sweeper.executors.stop_request import StopRequest
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.search.study import Search
from sweeper.store import Database, StudyState
from sweeper.study.run import resume_study, run_study

LEARNABLE = {
    "shape": "same_answer",
    "adapter": {"kind": "qlora"},
    "search": {
        "space": {"learning_rate": [1e-2, 2e-2], "batch_size": 8, "epochs": 4, "lora_rank": 4, "lora_dropout": 0.0},
        "n_trials": 3,
        "confirm": 0,
    },
    "evaluation": {"metric": "exact_match"},
}


class Stopping(Listener):
    """Asks to stop at a step of a trial, and keeps what it is told."""

    def __init__(self, number=None, step=None):
        self.at = (number, step)
        self.stop = StopRequest()
        self.begun, self.notes, self.stages = [], [], []

    def stage(self, text, fraction=None):
        self.stages.append(text)

    def trial_started(self, candidate, spec, total_steps):
        self.begun.append(candidate.number)

    def trial_reported(self, number, step, metrics):
        if (number, step) == self.at:
            self.stop.set()

    def note(self, text):
        self.notes.append(text)


def finished(home, name="tiny"):
    """What every finished trial was and how it ended, in order; its number in the study left out."""
    with Database.open(home.database, create=False) as database:
        trials = [trial for trial in database.trials.all(name) if trial.outcome != Outcome.INTERRUPTED]
        losses = {
            trial.number: [point.value for point in database.metrics.get(name, number=trial.number, name="loss")]
            for trial in trials
        }
    return [
        (
            trial.kind,
            trial.seed,
            trial.parameters,
            trial.outcome,
            trial.value,
            trial.adapter_sha256,
            losses[trial.number],
        )
        for trial in trials
    ]


def state(home, name="tiny"):
    with Database.open(home.database, create=False) as database:
        return database.studies.get(name).state


def test_a_study_that_beats_its_base_ends_with_a_registered_adapter(study_file):
    home, listener = Home.current(), Stopping()
    result = run_study(study_file(**LEARNABLE), listener=listener)
    assert result.base.metrics["exact_match"].value == 0.0
    assert result.candidates[result.trial].metrics["exact_match"].value > 0.5
    assert result.comparison.beats_base
    assert len(result.base.references) == 10 >= FEWEST_EXAMPLES
    assert "scoring base model on the test split" in listener.stages
    with Database.open(home.database, create=False) as database:
        (version,) = Registry(home, database).all("tiny")
        assert version == result.registered
        assert (version.version, version.lineage.study, version.lineage.trial) == (1, "tiny", result.trial)
        weights = home.adapter("tiny", 1) / "adapter_model.safetensors"
        won = database.trials.get("tiny", result.trial)
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == won.adapter_sha256
        assert "registered" in {event.kind for event in database.events.all("tiny")}
    assert state(home) is StudyState.FINISHED
    again = resume_study("tiny")  # scores again, and registers nothing a second time
    assert again.registered == result.registered
    assert again.candidates == result.candidates
    assert len(finished(home)) == 3


def test_everything_about_a_study_is_in_the_database(study_file):
    file, home = study_file(), Home.current()
    result = run_study(file)
    assert result.registered is None  # numbers are too much for it
    assert not result.comparison.beats_base
    assert "base model" in result.report.read_text()
    with Database.open(home.database, create=False) as database:
        study = database.studies.get("tiny")
        assert study.file_text == file.path.read_text()
        assert study.config == json.loads(file.config.model_dump_json())
        assert {"learning_rate", "lora_rank", "batch_size"} <= study.space["space"].keys()
        assert {"torch", "trl", "peft", "optuna"} <= study.packages.keys()
        assert study.data_sha256.keys() == {"train", "validation", "test"}
        assert len(study.base_model_fingerprint) == 64
        trials = database.trials.all("tiny")
        assert [trial.number for trial in trials] == [0, 1, 2, 3]
        complete = [trial for trial in trials if trial.outcome is Outcome.COMPLETE]
        assert all(trial.adapter_bytes and trial.tokens and trial.train_seconds for trial in complete)
        scored = {evaluation.number: evaluation for evaluation in database.evaluations.all("tiny")}
        assert scored.keys() == {None, *result.candidates}
        for number, evaluation in scored.items():
            assert [score.metric for score in evaluation.scores] == ["exact_match", "perplexity"]
            perplexity = evaluation.scores[1]
            assert perplexity.low < perplexity.score < perplexity.high
            assert (perplexity.diff_to_base is None) == (number is None)
            examples = database.evaluations.examples("tiny", number, "test")
            assert [example.index for example in examples] == list(range(10))
            assert all(example.prompt.startswith("write five") for example in examples)
        kinds = {event.kind: event.message for event in database.events.all("tiny")}
        assert kinds["no_winner"] == "nothing beats the base model; nothing is registered"
        assert Registry(home, database).all("tiny") == ()
    by_optuna = optuna.load_study(study_name="tiny", storage=f"sqlite:///{home.database}")
    assert [trial.value for trial in by_optuna.get_trials(states=(TrialState.COMPLETE,))] == [t.value for t in complete]
    assert by_optuna.best_value == min(trial.value for trial in complete)
    assert by_optuna.trials[0].params["learning_rate"] == trials[0].parameters["learning_rate"]
    insisted = resume_study("tiny", force=True)
    assert insisted.registered.version == 1
    assert insisted.registered.lineage.trial == insisted.trial


@pytest.mark.parametrize("adapter", [pytest.param("lora", marks=pytest.mark.long), "qlora"])
def test_stopped_and_resumed_it_is_the_same_study(study_file, tmp_path, adapter):
    search = {"n_trials": 5, "known_good": True, "confirm": 0.4, "confirm_top": 2}
    file = study_file(adapter={"kind": adapter}, search=search, executor={"kind": "inline"})
    through, stopped = Home(tmp_path / "through"), Home(tmp_path / "stopped")
    result = run_study(file, home=through)
    expected = finished(through)
    assert [kind for kind, *_ in expected].count("confirmation") == 2
    first = Stopping(number=1, step=1)
    with pytest.raises(StudyInterrupted, match="sweeper resume tiny"):
        run_study(file, home=stopped, listener=first, stop=first.stop)
    assert state(stopped) is StudyState.INTERRUPTED
    assert len(finished(stopped)) == 1
    second = Stopping(number=3, step=1)
    with pytest.raises(StudyInterrupted):
        resume_study("tiny", home=stopped, listener=second, stop=second.stop)
    assert second.notes == ["1 stopped trial(s) go on where they were"]
    third = Stopping()
    resumed = resume_study("tiny", home=stopped, listener=third)
    assert finished(stopped) == expected
    assert state(stopped) is StudyState.FINISHED
    begun = [*first.begun, *second.begun, *third.begun]
    assert (len(begun), len(set(begun))) == (5 + 2, 5)
    assert list(resumed.candidates.values()) == list(result.candidates.values())
    assert list(resumed.comparison.to_base.values()) == list(result.comparison.to_base.values())
    with Database.open(stopped.database, create=False) as database:
        restarted = [trial.restarts for trial in database.trials.all("tiny") if trial.restarts is not None]
    assert restarted == []


def test_a_stop_while_the_winner_is_sought_is_resumed_there(study_file):
    class AtScoring(Stopping):
        def stage(self, text, fraction=None):
            if "trial" in text:
                self.stop.set()

    listener = AtScoring()
    with pytest.raises(StudyInterrupted, match="while scoring"):
        run_study(study_file(search={"n_trials": 1}), listener=listener, stop=listener.stop)
    quiet = Stopping()
    assert resume_study("tiny", listener=quiet).trial == 0
    assert quiet.begun == []


def test_ctrl_c_twice_loses_no_finished_trial(study_file):
    class Hurried(Stopping):
        def trial_reported(self, number, step, metrics):
            if (number, step) == (1, 1):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study_file(search={"n_trials": 2, "pruner": "none"}), listener=Hurried())
    assert state(Home.current()) is StudyState.INTERRUPTED
    with Database.open(Home.current().database, create=False) as database:
        assert [trial.outcome for trial in database.trials.all("tiny")] == [Outcome.COMPLETE, None]
    resume_study("tiny")
    assert len(finished(Home.current())) == 2


def test_a_name_is_used_once(study_file):
    file = study_file(search={"n_trials": 1})
    run_study(file)
    with pytest.raises(StudyStateError, match=r"sweeper resume tiny.*--name tiny-2"):
        run_study(file)
    run_study(study_file(name="tiny-2", search={"n_trials": 1}))
    assert len(finished(Home.current())) == len(finished(Home.current(), "tiny-2")) == 1


def test_there_must_be_a_study_to_resume(study_file):
    Database.open(Home.current().database, create=True).close()
    with pytest.raises(StudyStateError, match="tiny"):
        resume_study("tiny")


def test_a_process_that_died_while_it_made_the_study_blocks_nothing(study_file, monkeypatch):
    from sweeper.store.studies import Studies

    file = study_file(search={"n_trials": 1})
    with monkeypatch.context() as patched:
        patched.setattr(Studies, "create", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_study(file)
    run_study(file)
    assert len(finished(Home.current())) == 1


def test_a_search_that_was_begun_is_never_forgotten(begin):
    context = begin()
    context.search.ask()
    storage = context.search.study._storage
    Search.forget_unbegun("tiny", storage)
    assert len(optuna.load_study(study_name="tiny", storage=storage).trials) == 1


def test_what_is_wrong_with_the_input_is_said_before_anything_is_kept(study_file):
    home = Home.current()
    with pytest.raises(ModelNotFoundError):
        run_study(study_file(model="./nowhere"))
    with pytest.raises(DataError):
        run_study(study_file(data={"train": "nowhere.jsonl"}))
    assert not home.database.exists() and not home.study("tiny").folder.exists()
    run_study(study_file(search={"n_trials": 1}))


@pytest.mark.parametrize("what", ["data/train.jsonl", "data/test.jsonl"])
def test_a_study_whose_files_are_gone_cannot_go_on(study_file, what):
    run_study(study_file(search={"n_trials": 1}))
    gone = Home.current().study("tiny").folder / what
    gone.unlink()
    with pytest.raises(StudyStateError, match=f"{gone.name} is gone"):
        resume_study("tiny")


def test_a_study_without_any_complete_trial_says_why(study_file, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(SweeperError) as infeasible:
        patched.setattr(micro_batches, "free_memory_bytes", lambda device: 1000)
        run_study(study_file(search={"n_trials": 2}))
    assert str(infeasible.value).splitlines() == [
        "no trial of tiny was completed, so there is no winner",
        "  2 x infeasible: by the estimate a single row does not fit in the free memory",
    ]
    assert state(Home.current()) is StudyState.FINISHED
    space = {"optim": "lomo", "batch_size": 8, "epochs": 1}
    with pytest.raises(SweeperError, match=r"2 x failed: .*lomo"):
        run_study(study_file(name="failing", search={"space": space, "n_trials": 2}))


def test_several_objectives_give_a_front(study_file):
    evaluation = {"objectives": ["adapter_size", "training_time", "latency"], "candidates": 3}
    result = run_study(study_file(evaluation=evaluation, search={"n_trials": 4}), force=True)
    with Database.open(Home.current().database, create=False) as database:
        trials = database.trials.all("tiny")
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 4
    assert all(trial.latency_ms > 0 for trial in trials)
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{Home.current().database}")
    assert study.metric_names == ["eval_loss", "adapter_size", "training_time", "latency"]
    for trial, told in zip(trials, study.trials, strict=True):
        assert told.values == [trial.value, trial.adapter_bytes, trial.train_seconds, trial.latency_ms]
    assert set(result.candidates) <= {trial.number for trial in study.best_trials}
    assert result.registered is not None
