from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import pytest

from sweeper import __version__
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.errors import DatabaseError, LeaseLost, StudyStateError
from sweeper.store import Database, Evaluation, Example, PruningDecision, ScoreRecord, StudyState, TrialKind

NewStudy = Callable[..., None]
Spec = Callable[..., TrialSpec]


def result(number: int = 0, **changes: Any) -> TrialResult:
    values: dict[str, Any] = {
        "number": number,
        "outcome": Outcome.COMPLETE,
        "value": 0.25,
        "metrics": {"eval_loss": 0.25},
        "best_step": 90,
        "steps": 100,
        "total_steps": 100,
        "epochs_trained": 1.0,
        "device": "cpu",
        "dtype": "bfloat16",
        "attention": "sdpa",
        "started_at": "2026-01-02T03:04:05+02:00",
        "finished_at": "2026-01-02T01:10:05+00:00",
        "train_seconds": 360.5,
        "latency_ms": 12.5,
        "tokens": 2**40,
        "peak_memory_bytes": 2**35,
        "micro_batch": 4,
        "adapter_bytes": 9_000_000,
        "adapter_sha256": "c" * 64,
    }
    return TrialResult.model_validate(values | changes)


def test_a_study_comes_back_as_it_went_in(database: Database, new_study: NewStudy) -> None:
    text = "name: itn\r\n# söme tabs\t漢字 \U0001f600\n"
    new_study("itn", file_text=text)
    study = database.studies.get("itn")
    assert study.file_text == text
    assert study.config == {"name": "itn", "seed": 3}
    assert study.space["reasons"] == ["adapter is qlora"]
    assert (study.state, study.sweeper_version, study.ended_at) == (StudyState.RUNNING, __version__, None)
    assert study.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - study.created_at) < timedelta(minutes=1)
    assert database.studies.all() == (study,)
    assert database.studies.find("itn") == study
    assert database.studies.find("other") is None


def test_a_studys_name_is_taken_once(database: Database, new_study: NewStudy) -> None:
    new_study("itn")
    with pytest.raises(StudyStateError, match="study 'itn' exists already: resume it"):
        new_study("itn")


def test_an_unknown_study_names_the_nearest(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("quickstart")
    for ask in (
        lambda: database.studies.get("quikstart"),
        lambda: database.studies.set_state("quikstart", StudyState.FINISHED),
        lambda: database.trials.start(spec(study="quikstart"), TrialKind.SAMPLED),
        lambda: database.trials.finish("quikstart", result()),
        lambda: database.trials.all("quikstart"),
        lambda: database.metrics.get("quikstart"),
        lambda: database.evaluations.all("quikstart"),
        lambda: database.events.add("quikstart", "note", "hello"),
    ):
        with pytest.raises(
            StudyStateError, match=r"no study 'quikstart' in this database; did you mean 'quickstart'\?"
        ):
            ask()


def test_states_and_their_times(database: Database, new_study: NewStudy) -> None:
    new_study("itn")
    database.studies.set_state("itn", StudyState.INTERRUPTED)
    interrupted = database.studies.get("itn")
    assert interrupted.state is StudyState.INTERRUPTED
    assert interrupted.ended_at is not None and interrupted.ended_at >= interrupted.started_at
    database.studies.set_state("itn", StudyState.RUNNING)
    resumed = database.studies.get("itn")
    assert resumed.ended_at is None
    assert resumed.started_at >= interrupted.ended_at > resumed.created_at
    messages = [event.message for event in database.events.all("itn")]
    assert messages == ["running -> interrupted", "interrupted -> running"]


def test_a_trial_from_start_to_end(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.ENQUEUED)
    database.trials.start(spec(1, learning_rate=3e-4), TrialKind.CONFIRMATION, confirms=0, restarts=None)
    running = database.trials.get("itn", 0)
    assert (running.outcome, running.value, running.metrics, running.seed) == (None, None, {}, 7)
    assert running.parameters == spec(0).parameters
    database.trials.finish("itn", result(0))
    ended, other = database.trials.all("itn")
    for field in set(TrialResult.model_fields) - {"started_at", "finished_at"}:
        assert getattr(ended, field) == getattr(result(0), field), field
    assert ended.started_at == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert ended.finished_at == datetime(2026, 1, 2, 1, 10, 5, tzinfo=UTC)
    assert (ended.kind, other.kind, other.confirms) == (TrialKind.ENQUEUED, TrialKind.CONFIRMATION, 0)
    assert other.parameters["learning_rate"] == 3e-4


def test_no_trial_starts_or_ends_twice(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    with pytest.raises(StudyStateError, match="trial 0 of study 'itn' was started before"):
        database.trials.start(spec(0), TrialKind.SAMPLED)
    database.trials.finish("itn", result(0))
    with pytest.raises(StudyStateError, match="has already ended: complete"):
        database.trials.finish("itn", result(0, outcome=Outcome.FAILED, value=None, reason="again"))
    with pytest.raises(StudyStateError, match="study 'itn' has no trial 5"):
        database.trials.finish("itn", result(5))
    assert database.trials.get("itn", 0).outcome is Outcome.COMPLETE


def test_trials_left_running_are_interrupted(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    new_study("other")
    for number in range(3):
        database.trials.start(spec(number), TrialKind.SAMPLED)
    database.trials.start(spec(0, study="other"), TrialKind.SAMPLED)
    database.trials.finish("itn", result(1))
    assert database.trials.interrupt("itn", [0, 1, 2], "the process was killed") == (0, 2)
    assert database.trials.interrupt("itn", [0, 1, 2], "again") == ()
    first, second, third = database.trials.all("itn")
    assert (first.outcome, first.reason) == (Outcome.INTERRUPTED, "the process was killed")
    assert (second.outcome, third.outcome) == (Outcome.COMPLETE, Outcome.INTERRUPTED)
    assert database.trials.get("other", 0).outcome is None


def test_metrics_with_nan_and_infinities(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    database.trials.start(spec(1), TrialKind.SAMPLED)
    values = {"loss": math.nan, "up": math.inf, "down": -math.inf, "whole": 3}
    database.metrics.add(
        "itn", [(0, 1, values), (1, 2**63 - 1, {"loss": numpy.float32(0.5)}), (0, 2, {"loss": 1e-300})]
    )
    points = {(p.number, p.step, p.name): p.value for p in database.metrics.get("itn")}
    assert math.isnan(points[0, 1, "loss"])
    assert (points[0, 1, "up"], points[0, 1, "down"], points[0, 1, "whole"]) == (math.inf, -math.inf, 3.0)
    assert points[1, 2**63 - 1, "loss"] == 0.5
    assert [p.value for p in database.metrics.get("itn", number=0, name="loss")][1] == 1e-300
    assert {p.number for p in database.metrics.get("itn", number=1)} == {1}


def test_a_step_told_again_replaces_the_former(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    database.metrics.add("itn", [(0, 1, {"loss": 2.0})])
    database.metrics.add("itn", [(0, 1, {"loss": 1.0}), (0, 1, {"loss": 0.5})])
    database.metrics.add("itn", [])
    assert [p.value for p in database.metrics.get("itn")] == [0.5]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((0, 2**63, {"loss": 1.0}), "step 9223372036854775808 is not between"),
        ((0, -1, {"loss": 1.0}), "step -1 is not between"),
        ((0, 1, {"loss": "0.5"}), "is not a number: '0.5'"),
        ((0, 1, {"loss": None}), "is not a number: None"),
        ((0, 1, {"x" * 101: 1.0}), "a name has 1 to 100 characters"),
        ((0, 1, {"": 1.0}), "a name has 1 to 100 characters"),
    ],
)
def test_a_bad_metric_stores_nothing_of_its_batch(
    database: Database, new_study: NewStudy, spec: Spec, entry: Any, message: str
) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    with pytest.raises(DatabaseError, match=message):
        database.metrics.add("itn", [(0, 1, {"fine": 1.0}), entry])
    with pytest.raises(StudyStateError, match="has no trial 9"):
        database.metrics.add("itn", [(0, 1, {"fine": 1.0}), (9, 1, {"fine": 1.0})])
    assert database.metrics.get("itn") == ()


def test_evaluations_of_the_base_and_of_trials(database: Database, new_study: NewStudy, spec: Spec) -> None:
    new_study("itn")
    database.trials.start(spec(4), TrialKind.SAMPLED)
    base = Evaluation(None, "test", (ScoreRecord("exact_match", 0.0, 0.0, 0.01), ScoreRecord("perplexity", math.inf)))
    best = Evaluation(
        4, "test", (ScoreRecord("exact_match", 0.9, 0.87, 0.93, 0.9, 0.86, 0.94), ScoreRecord("rouge1", math.nan))
    )
    example = Example(0, "three", "3", "3 \ud800 \0", {"exact_match": 1.0, "perplexity": math.inf})
    database.evaluations.add("itn", base)
    database.evaluations.add("itn", best, [example, Example(1, "x" * 5_000_000, "4", "5", {})])
    found = database.evaluations.all("itn")
    assert found[0] == base
    assert found[1].scores[0] == best.scores[0]
    assert math.isnan(found[1].scores[1].score)
    first, second = database.evaluations.examples("itn", 4, "test")
    assert first.generated == "3 ? \N{REPLACEMENT CHARACTER}"
    assert first.scores == {"exact_match": 1.0, "perplexity": None}
    assert len(second.prompt) == 20_000 and second.prompt.endswith("[cut from 5000000 characters]")
    assert database.evaluations.examples("itn", None, "test") == ()


def test_scoring_again_replaces_scores_and_examples(database: Database, new_study: NewStudy) -> None:
    new_study("itn")
    for score in (0.1, 0.2):
        subject = Evaluation(None, "test", (ScoreRecord("exact_match", score),))
        database.evaluations.add("itn", subject, [Example(0, "p", "r", str(score), {})])
    database.evaluations.add("itn", Evaluation(None, "validation", (ScoreRecord("exact_match", 0.3),)))
    assert [evaluation.scores[0].score for evaluation in database.evaluations.all("itn")] == [0.2, 0.3]
    assert [example.generated for example in database.evaluations.examples("itn", None, "test")] == ["0.2"]
    with pytest.raises(StudyStateError, match="has no trial 8"):
        database.evaluations.add("itn", Evaluation(8, "test", ()))


def test_events_are_bounded(database: Database, new_study: NewStudy) -> None:
    new_study("itn")
    database.events.add("itn", "pruned", "m" * 10_000, number=3, data={"step": 40})
    database.events.add("itn", "huge", "short", data={"x": "y" * 5_000_000})
    pruned, huge = database.events.all("itn")
    assert len(pruned.message) == 2_000 and pruned.message.endswith("[cut from 10000 characters]")
    assert (pruned.number, pruned.data) == (3, {"step": 40})
    assert huge.data is not None and huge.data["omitted_characters"] > 5_000_000
    assert database.events.all("itn", number=3) == (pruned,)
    assert pruned.at.tzinfo is UTC


def test_sql_in_names_is_only_text(database: Database, new_study: NewStudy) -> None:
    name = "'; DROP TABLE sweeper_studies; --"
    new_study(name)
    assert database.studies.get(name).name == name
    assert len(database.studies.all()) == 1


def test_evaluations_of_several_bases_stand_beside_each_other(database, new_study, spec):
    new_study()
    database.trials.start(spec(), TrialKind.SAMPLED, chosen={"model": "a"}, base_model_fingerprint="f" * 64)
    for base, value in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        example = Example(0, "in", "out", f"by {base} {value}", {})
        database.evaluations.add("itn", Evaluation(None, "test", (ScoreRecord("exact_match", value),), base), [example])
    database.evaluations.add("itn", Evaluation(0, "test", (ScoreRecord("exact_match", 0.9),), "a"))
    found = {(e.subject, e.base): e.scores[0].score for e in database.evaluations.all("itn")}
    assert found == {("base model a", "a"): 0.3, ("base model b", "b"): 0.2, ("trial 0", "a"): 0.9}
    assert [e.generated for e in database.evaluations.examples("itn", None, "test", "b")] == ["by b 0.2"]
    assert database.evaluations.examples("itn", None, "test") == ()
    trial = database.trials.get("itn", 0)
    assert (trial.base_model, trial.base_model_fingerprint) == ("smollm2-135m", "f" * 64)
    assert (trial.parameters["model"], trial.parameters["learning_rate"]) == ("a", 1e-3)


def test_a_pruning_decision_is_stored_once_however_often_it_is_taken(
    database: Database, new_study: NewStudy, spec: Spec
) -> None:
    new_study("itn")
    database.trials.start(spec(0), TrialKind.SAMPLED)
    assert database.decisions.of("itn", 0) == ()
    later = PruningDecision(67, "auto", 67, 2.0, 3, 2, 1, 1.5, True, "too weak", ((4, 1.5), (3, 1.75)))
    first = PruningDecision(33, "auto", 33, 1.0, 1, 0, 1, None, False, "alone", ())
    for decision in (later, first, first):
        database.decisions.add("itn", 0, decision)
    assert database.decisions.of("itn", 0) == (first, later)
    again = replace(first, peers=1, rank=1, threshold=2.5, compared=((1, 2.5),))
    database.decisions.add("itn", 0, again)  # by a process that took up the trial of one that died
    assert database.decisions.of("itn", 0) == (again, later)
    with pytest.raises(LeaseLost):
        database.decisions.add("itn", 0, first, holder="another")
    with pytest.raises(StudyStateError, match="has no trial 7"):
        database.decisions.add("itn", 7, first)
    assert database.decisions.of("itn", 0) == (again, later)
