"""What a study keeps to from its first refusal to its last resume."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from sweeper.config.loader import load_study
from sweeper.config.parameters import PARAMETERS
from sweeper.config.trial import Outcome
from sweeper.config.trl_fields import OWNED, RENAMED
from sweeper.errors import DataError, StudyFileError, StudyStateError, SweeperError
from sweeper.executors import inline
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.lifecycle.claims import ask
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.paths import Home
from sweeper.store import Database, StudyState, TrialKind
from sweeper.study.run import resume_study, run_study
from sweeper.training import arguments, techniques


def trials():
    with Database.open(Home.current().database, create=False) as database:
        return database.trials.all("tiny")


def test_plain_text_has_no_answers_to_compare_and_is_refused_before_it_trains(study_file):
    with pytest.raises(DataError, match="rows of plain text have none"):
        run_study(study_file(shape="text"))
    assert not Home.current().database.exists()


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("search", {"pruner": {"kind": "threshold"}}, "needs lower, upper or both"),
        ("executor", {"kind": "inline", "micro_batch": 0}, "greater than or equal to 1"),
        ("search", {"sampler": "cmaes"}, "supports only one objective"),
    ],
)
def test_what_no_trial_could_run_with_is_a_fault_of_the_file(study_file, part, value, said):
    objectives = {"evaluation": {"objectives": ["latency"]}} if "sampler" in value else {}
    with pytest.raises(StudyFileError, match=said):
        study_file(**{part: value}, **objectives)


def test_a_finished_study_is_not_searched_again_by_a_resume(study_file):
    run_study(study_file(search={"n_trials": 3, "timeout": 3600, "confirm": 0}))
    before = trials()
    resume_study("tiny", force=True)
    assert trials() == before


def test_time_is_counted_as_a_part_of_the_budget(begin):
    context = begin(search={"n_trials": 4, "timeout": 3600})
    assert inline.budget_spent(context, 1800) == 0.5
    assert inline.budget_spent(begin(name="other", search={"n_trials": 4}), 1e9) == 0


def test_the_end_of_any_budget_confirms_the_best(begin):
    context = begin(search={"n_trials": 20, "confirm": 0.2, "sampler": "random", "known_good": False})
    candidate = ask(context, 0.0)
    assert candidate.kind is TrialKind.SAMPLED
    InlineExecutor()._run_trial(context, candidate)
    again = ask(context, 0.85)
    assert (again.kind, again.confirms) == (TrialKind.CONFIRMATION, candidate.number)


@pytest.mark.parametrize("pruner", ["auto", "median", {"kind": "threshold", "upper": 0.0}])
def test_a_trial_that_has_trained_to_its_end_is_never_pruned(study_file, pruner):
    file = study_file(search={"n_trials": 5, "pruner": pruner, "confirm": 0}, evaluation={"points": 1})
    run_study(file, force=True)
    assert [trial.outcome for trial in trials()] == [Outcome.COMPLETE] * 5


def test_an_old_result_on_disk_is_not_taken_for_a_trial_the_database_never_saw(begin):
    context = begin()
    candidate = ask(context)
    folder = context.paths.trial(candidate.number).folder
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    context.search.forget(candidate.number)  # the process died here
    context.database.workers.leave(context.membership.token)
    assert reclaim(context) == 1


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_study_goes_on_only_with_what_it_began_with(study_file, damage):
    run_study(study_file(search={"n_trials": 1}))
    paths = Home.current().study("tiny")
    if damage == "gone":
        paths.resolved.unlink()
    else:
        with (paths.data / "train.jsonl").open("a") as file:
            file.write('{"prompt": "a", "completion": " b"}\n')
    with pytest.raises(StudyStateError, match="cannot go on"):
        resume_study("tiny")


def test_a_study_that_failed_altogether_has_ended(study_file, monkeypatch):
    from sweeper.training import trial

    def fail(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(trial, "build_trainer", fail)
    with pytest.raises(SweeperError, match=r"2 x failed: RuntimeError: broken"):
        run_study(study_file(search={"n_trials": 2, "confirm": 0}, executor={"kind": "inline"}))
    with Database.open(Home.current().database, create=False) as database:
        assert database.studies.get("tiny").state is StudyState.FINISHED


def _is_call_of(node, name):
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == name


def _passed_fields():
    """The TRL fields that training sets: those all techniques share, and each one's own beside them."""
    shared = next(
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(arguments.training_arguments)))
        if isinstance(node, ast.Return)
    )
    yield from (key.value for key in shared.keys if key is not None)
    for file in Path(techniques.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            unpacked = [keyword.value for keyword in node.keywords if keyword.arg is None]
            if any(_is_call_of(part, "training_arguments") for value in unpacked for part in ast.walk(value)):
                yield from (keyword.arg for keyword in node.keywords if keyword.arg is not None)


def test_every_field_that_training_passes_is_kept_out_of_the_space(tmp_path):
    passed = set(_passed_fields())
    assert {"output_dir", "disable_dropout", "reward_weights"} < passed
    assert passed <= {*PARAMETERS, *OWNED, *RENAMED}
    study = tmp_path / "s.yaml"
    study.write_text("name: s\nmodel: m\ndata: {train: t.jsonl}\nsearch: {space: {eval_packing: true}}\n")
    with pytest.raises(StudyFileError, match="cannot be searched"):
        load_study(study)
