"""Which trials are compared, where, and which go on."""

from __future__ import annotations

import optuna
import pytest

from sweeper.config.search import HalvingPruner, HyperbandPruner, MedianPruner, ThresholdPruner
from sweeper.search.pruners.build import build_pruner
from sweeper.search.pruners.fair import FairPruner
from sweeper.search.pruners.halving import EqualProgressHalving, EqualProgressHyperband


def study_with(pruner: optuna.pruners.BasePruner, direction: str = "minimize") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(pruner=pruner, direction=direction)


def trial_of(study: optuna.Study, length: float = 3.0, warmup: float = 0.0) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("length", length)
    trial.set_user_attr("warmup_end_percent", warmup)
    return trial


def goes_on(trial: optuna.Trial, value: float, step: int) -> bool:
    trial.report(value, step)
    return not trial.should_prune()


def test_rungs_are_per_cent() -> None:
    assert EqualProgressHalving(2, 1 / 3).rungs == (33, 67)
    assert EqualProgressHalving(3, 1 / 9).rungs == (11, 33)
    assert EqualProgressHalving(2, 1.0).rungs == ()


def test_the_first_goes_on_and_then_the_best_half() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    arrivals = [goes_on(trial_of(study), value, 33) for value in (5.0, 6.0, 4.0, 4.5, 4.2)]
    assert arrivals == [True, False, True, True, True]


def test_ties_go_on() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    assert [goes_on(trial_of(study), 1.0, 33) for _ in range(5)] == [True] * 5


def test_larger_is_better_when_maximised() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3), "maximize")
    assert [goes_on(trial_of(study), value, 33) for value in (0.5, 0.4, 0.6)] == [True, False, True]


def test_only_a_report_that_reaches_a_rung_is_judged() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    assert goes_on(trial_of(study), 1.0, 33)
    weak = trial_of(study)
    assert goes_on(weak, 9.0, 17)
    assert not goes_on(weak, 9.0, 50)  # first report at or after the rung
    passed = trial_of(study)
    assert goes_on(passed, 0.5, 40)
    assert goes_on(passed, 9.0, 60)  # its rung is behind it


def test_other_lengths_are_left_alone() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    assert goes_on(trial_of(study, length=1.0), 1.0, 33)
    assert goes_on(trial_of(study, length=3.0), 9.0, 33)
    assert not goes_on(trial_of(study, length=3.0), 10.0, 33)


def test_a_rung_inside_the_warmup_is_skipped() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    assert goes_on(trial_of(study), 1.0, 33)
    warming = trial_of(study, warmup=50.0)
    assert goes_on(warming, 9.0, 33)
    other = trial_of(study)
    assert goes_on(other, 0.9, 33)
    assert goes_on(other, 0.9, 67)
    assert not goes_on(warming, 9.0, 67)


def test_pruned_and_complete_trials_count_failed_ones_do_not() -> None:
    study = study_with(EqualProgressHalving(2, 1 / 3))
    for state in (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED):
        trial = trial_of(study)
        trial.report(1.0, 33)
        judged = trial_of(study)
        study.tell(trial, state=state)
        assert goes_on(judged, 2.0, 33) == (state == optuna.trial.TrialState.FAIL)


def test_medians_are_of_the_same_length_and_after_warmup() -> None:
    study = study_with(build_pruner(MedianPruner(startup_trials=1, start=0.0)))
    done = trial_of(study, length=1.0)
    done.report(1.0, 50)
    study.tell(done, 1.0)
    assert goes_on(trial_of(study, length=3.0), 9.0, 50)
    assert goes_on(trial_of(study, length=1.0, warmup=60.0), 9.0, 50)
    assert not goes_on(trial_of(study, length=1.0), 9.0, 50)
    assert isinstance(study.pruner, FairPruner)


def test_hyperband_compares_within_a_bracket() -> None:
    pruner = build_pruner(HyperbandPruner(eta=3))
    assert isinstance(pruner, EqualProgressHyperband)
    study = study_with(pruner)
    seen = set()
    for seed in range(60):
        trial = trial_of(study)
        trial.set_user_attr("seed", seed)
        trial.report(float(seed), 11)
        if trial.should_prune():
            seen.add(pruner.bracket(trial.number).rungs)
    assert seen == {(11, 33)}  # only the first bracket has a rung at a ninth


def test_a_threshold_needs_a_bound() -> None:
    with pytest.raises(ValueError, match="lower, upper or both"):
        build_pruner(ThresholdPruner())


def test_asha_follows_its_settings() -> None:
    pruner = build_pruner(HalvingPruner(eta=4, start=0.05))
    assert isinstance(pruner, EqualProgressHalving)
    assert pruner.rungs == (5, 20, 80)
