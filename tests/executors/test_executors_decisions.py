"""What the pruner decides is in the database when it is decided, whichever executor runs the trials."""

from __future__ import annotations

import pytest

from sweeper.config.trial import Outcome
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.packed.executor import PackedExecutor

SPACE = {"learning_rate": [1e-4, 3e-2], "lora_rank": [2, 4], "batch_size": 8, "epochs": 2}
PRUNERS = [
    "auto",
    {"kind": "asha", "eta": 2, "start": 0.25},
    {"kind": "hyperband", "eta": 3},
    {"kind": "median", "startup_trials": 1, "start": 0.0},
    {"kind": "percentile", "percentile": 50, "startup_trials": 1, "start": 0.0},
    {"kind": "patient", "patience": 0},
    {"kind": "threshold", "upper": 100.0},
    {"kind": "wilcoxon", "p_threshold": 0.5},
]


def decisions(context):
    found = context.database.trials.all("tiny")
    return {trial.number: (trial, context.database.decisions.of("tiny", trial.number)) for trial in found}


def kind_of(pruner):
    return pruner if isinstance(pruner, str) else pruner["kind"]


CASES = [pytest.param(PackedExecutor, pruner, id=f"packed-{kind_of(pruner)}") for pruner in PRUNERS]
CASES += [pytest.param(InlineExecutor, pruner, id=f"inline-{kind_of(pruner)}") for pruner in PRUNERS[:1]]


@pytest.mark.parametrize(("executor", "pruner"), CASES)
def test_decisions_are_recorded(begin, executor, pruner):
    kind = {"kind": "packed", "slots": 2, "device": "cpu"} if executor is PackedExecutor else {"kind": "inline"}
    search = {"space": SPACE, "n_trials": 6, "confirm": 0, "sampler": "random", "pruner": pruner}
    context = begin(search=search, executor=kind)
    executor().run(context)
    found = decisions(context)
    assert len(found) == 6 and any(of_trial for _, of_trial in found.values())
    for trial, of_trial in found.values():
        pruned = trial.outcome is Outcome.PRUNED
        assert [each.pruned for each in of_trial] == [False] * (len(of_trial) - pruned) + [True] * pruned
        reported = context.database.metrics.get("tiny", number=trial.number, name="eval_loss")
        at = {round(100 * point.step / trial.total_steps): point.value for point in reported}
        for each in of_trial:
            assert each.pruner == kind_of(pruner)
            if each.rung is not None:
                assert each.value == pytest.approx(at[each.progress])
                for number, value in each.compared:
                    theirs = context.database.metrics.get("tiny", number=number, name="eval_loss")
                    assert number != trial.number and any(value == pytest.approx(point.value) for point in theirs)


def test_a_decision_is_kept_when_the_process_dies_right_after_it(begin, monkeypatch):
    """The trial is not ended, and what it reported and what was decided on it are stored."""
    context = begin(search={"space": SPACE, "n_trials": 2, "confirm": 0, "sampler": "random", "pruner": "auto"})
    add = context.database.decisions.add

    def die(*arguments, **named):
        add(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(context.database.decisions, "add", die)
    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().run(context)
    ((trial, (decision,)),) = decisions(context).values()
    assert trial.outcome is None and decision.rung == 33 and not decision.pruned
    reported = context.database.metrics.get("tiny", number=trial.number, name="eval_loss")
    assert reported[-1].value == pytest.approx(decision.value)
