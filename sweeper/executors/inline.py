"""One trial after the other in this process, on base models that stay loaded while they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sweeper.config.backend import in_own_processes
from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.errors import LeaseLost
from sweeper.evaluation.validation import task_metric
from sweeper.executors.base import StudyContext
from sweeper.executors.bases import Bases
from sweeper.executors.claims import bide, claim, others_train
from sweeper.executors.control import obey
from sweeper.executors.micro_batches import MicroBatches
from sweeper.executors.processes import train_in_processes
from sweeper.executors.recorder import Recorder, drop
from sweeper.executors.recovery import begin_again
from sweeper.executors.specification import specification
from sweeper.search.candidate import Candidate
from sweeper.training.base_model import BaseModel
from sweeper.training.results import Ledger, Progress
from sweeper.training.trial import train_trial


class InlineExecutor:
    """Runs trials one by one; a base model stays loaded until a trial needs another, or the final scoring ends."""

    def __init__(self, bases: Bases | None = None) -> None:
        self._bases = Bases() if bases is None else bases

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one before's."""
        return self._bases.of(context, spec)

    def run(self, context: StudyContext) -> None:
        """Run trials until the search or the budget ends, or the user asks to stop."""
        before = sum(trial.train_seconds for trial in context.database.trials.all(context.config.name))
        begun = context.asked.clock()
        while True:
            obey(context)
            if context.stop.is_set:
                return
            begin_all_again(context)
            others = others_train(context)
            candidate = claim(context, partial(_next, context, before + context.asked.clock() - begun))
            if candidate is not None:
                self._run_held(context, candidate)
            elif others:
                bide()
            else:
                return

    def _run_held(self, context: StudyContext, candidate: Candidate) -> None:
        try:
            self._run_trial(context, candidate)
        except LeaseLost:
            drop(context, candidate.number)

    def _run_trial(self, context: StudyContext, candidate: Candidate) -> None:
        spec = specification(context, candidate)
        if in_own_processes(spec.backend):
            run_in_processes(context, candidate, spec)
            return
        base = self.base(context, spec)
        recorder = Recorder(context, candidate, spec)
        recorder.start()
        planner = MicroBatches(context, base)
        rows = planner.plan(spec)
        if rows == 0:
            recorder.end(infeasible(spec, base))
            return
        evaluate = task_metric(base, spec.validation, spec.evaluation, spec.technique, spec.reward_sources)
        result = train_trial(spec, base, obedient(context, recorder), rows, evaluate)
        planner.learn(spec, rows, result)
        recorder.end(result)


def _next(context: StudyContext, seconds: float) -> Candidate | None:
    spent = budget_spent(context, seconds)
    return context.search.ask(spent) if spent < 1 else context.search.ask_ordered()


def begin_all_again(context: StudyContext) -> None:
    """Queue again, from their beginning, all trials that wait on disk: here none can go on from there."""
    with context.alone():
        elsewhere = context.crew.elsewhere()
        begin_again(context, [number for number in context.search.interrupted() if number not in elsewhere])


def run_in_processes(context: StudyContext, candidate: Candidate, spec: TrialSpec) -> None:
    """Run one trial in processes of its own, which load the base model themselves."""
    recorder = Recorder(context, candidate, spec)
    recorder.start()
    recorder.end(train_in_processes(spec, obedient(context, recorder)))


def obedient(context: StudyContext, report: Report) -> Report:
    """Return a ``report`` that first does what people have asked of the study."""

    def obeying(step: int, metrics: Mapping[str, float]) -> Decision:
        obey(context)
        return report(step, metrics)

    return obeying


def budget_spent(context: StudyContext, seconds: float, running_epochs: float = 0.0) -> float:
    """Return the part of the study's time and epochs that is used up, the larger of the two; 0 where none is set.

    Args:
        context: The study.
        seconds: What it has taken so far.
        running_epochs: What the trials that run now in this process will have trained when they end.
    """
    search = context.config.search
    elsewhere = context.crew.elsewhere()
    running_epochs += context.search.planned_epochs(elsewhere) if elsewhere else 0.0
    epochs = context.search.epochs_spent + running_epochs
    time_spent = seconds / search.timeout if search.timeout is not None else 0.0
    epochs_spent = epochs / search.max_epochs_total if search.max_epochs_total is not None else 0.0
    return max(time_spent, epochs_spent)


def infeasible(spec: TrialSpec, base: BaseModel) -> TrialResult:
    """Return the result of a trial that is not begun, because by the estimate not even one row at a time fits."""
    reason = "by the estimate a single row does not fit in the free memory"
    return Ledger(spec, base).result(Progress(), Outcome.INFEASIBLE, reason)
