"""One trial after the other in this process, on base models that stay loaded while they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sweeper.config.backend import in_own_processes
from sweeper.config.trial import Decision, Outcome, Report, TrialResult, TrialSpec
from sweeper.errors import LeaseLost
from sweeper.evaluation.scorer import task_metric
from sweeper.executors.base_models import BaseModelCache
from sweeper.executors.context import StudyContext
from sweeper.executors.distributed.launcher import LaunchPolicy, train_in_processes
from sweeper.executors.lifecycle.claims import abandoned, claim, others_train, stopped, wait
from sweeper.executors.lifecycle.integrity import can_go_on, cannot_begin
from sweeper.executors.lifecycle.orders import process_orders
from sweeper.executors.lifecycle.recorder import Recorder, drop, give_up
from sweeper.executors.lifecycle.recovery import begin_unreadable_again, reclaim
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.executors.micro_batches import MicroBatches
from sweeper.paths import TrialPaths
from sweeper.search.candidate import Candidate
from sweeper.training.base_model import BaseModel
from sweeper.training.checkpoint import has_checkpoint, progress_of
from sweeper.training.resumable_trainer import CheckpointPolicy
from sweeper.training.trial import train_trial
from sweeper.training.trial_output import TrialOutput, TrialProgress


class InlineExecutor:
    """Runs trials one by one; a base model stays loaded until a trial needs another, or the final scoring ends."""

    def __init__(self, bases: BaseModelCache | None = None) -> None:
        self._bases = BaseModelCache() if bases is None else bases

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one before's."""
        return self._bases.of(context, spec)

    def run(self, context: StudyContext) -> None:
        """Run trials until the search or the budget ends, or the user asks to stop."""
        before = sum(trial.train_seconds for trial in context.database.trials.all(context.config.name))
        begun = context.pending_orders.clock()
        begin_unreadable_again(context, has_checkpoint)
        if waiting := stopped(context):
            context.listener.note(f"{len(waiting)} stopped trial(s) go on where they were")
        while True:
            process_orders(context)
            if context.stop.is_set:
                return
            begin_unreadable_again(context, has_checkpoint)
            others = others_train(context)
            candidate = claim(context, partial(_next, context, before + context.pending_orders.clock() - begun))
            if candidate is not None:
                self._run_held(context, candidate)
            elif others:
                wait()
            elif abandoned(context):
                reclaim(context)
            else:
                return

    def _run_held(self, context: StudyContext, candidate: Candidate) -> None:
        try:
            self._run_trial(context, candidate)
        except LeaseLost:
            drop(context, candidate.number)
        except Exception as error:
            give_up(context, candidate.number, error)

    def _run_trial(self, context: StudyContext, candidate: Candidate) -> None:
        """Run a trial from its beginning, or from its checkpoint where it has one."""
        context.fetch_trial(candidate.number)
        if candidate.initial is not None:
            context.fetch_trial(candidate.initial)
        if context.paths.trial(candidate.number).is_frozen and not can_go_on(context, candidate.number):
            return
        spec = specification(context, candidate)
        if in_own_processes(spec.backend):
            run_in_processes(context, candidate, spec)
            return
        base = self.base(context, spec)
        recorder = Recorder(context, candidate, spec)
        kept = begun(recorder, spec)
        if failed := cannot_begin(context, spec):
            recorder.end(failed)
            return
        planner = MicroBatches(context, base)
        rows = planner.plan(spec) or (kept and kept.micro_batch)  # what has run is tried, whatever the estimate says
        if not rows:
            recorder.end(infeasible(spec, base))
            return
        evaluate = task_metric(
            base,
            spec.validation,
            spec.evaluation,
            spec.technique,
            spec.reward_sources,
            on_progress=lambda done, total: context.keep_alive(),
        )
        checkpoints = CheckpointPolicy(
            context.config.executor.checkpoint_s, partial(_before_checkpoint, context, recorder, spec)
        )
        report, resume = obedient(context, recorder), kept is not None
        result = train_trial(spec, base, report, rows, evaluate, checkpoints=checkpoints, resume=resume)
        planner.learn(spec, rows, result)
        recorder.end(result)


def _before_checkpoint(context: StudyContext, recorder: Recorder, spec: TrialSpec) -> None:
    """Record what was reported, and let others have the checkpoint before, which is whole."""
    recorder.flush()
    if TrialPaths(spec.folder).is_frozen:
        context.keep_trial(spec.number)


def _next(context: StudyContext, seconds: float) -> Candidate | None:
    """Choose a trial that was ordered, one that was stopped, or a new one."""
    search = context.search
    if candidate := search.ask_ordered():
        return candidate
    if waiting := stopped(context):
        return search.take_up(waiting[0])
    spent = budget_spent(context, seconds)
    return search.ask(spent) if spent < 1 else None


def begun(recorder: Recorder, spec: TrialSpec) -> TrialProgress | None:
    """Record that a trial begins, or goes on; return how far it had come, None where it begins.

    Raises:
        StudyStateError: If it goes on and its checkpoint is damaged.
    """
    paths = TrialPaths(spec.folder)
    if not has_checkpoint(paths):
        recorder.start()
        return None
    kept = progress_of(paths)
    recorder.take_up(kept.total_steps, kept.seconds)
    return kept


def run_in_processes(context: StudyContext, candidate: Candidate, spec: TrialSpec) -> None:
    """Run one trial in processes of its own, which load the base model themselves."""
    recorder = Recorder(context, candidate, spec)
    begun(recorder, spec)
    executor = context.config.executor
    policy = LaunchPolicy(
        max_retries=executor.max_retries,
        stall_timeout_s=executor.stall_timeout_s,
        checkpoints=CheckpointPolicy(executor.checkpoint_s, recorder.flush),
        note=context.listener.note,
    )
    recorder.end(cannot_begin(context, spec) or train_in_processes(spec, obedient(context, recorder), policy))


def obedient(context: StudyContext, report: Report) -> Report:
    """Return a ``report`` that first does what people have asked of the study."""

    def obeying(step: int, metrics: Mapping[str, float]) -> Decision:
        process_orders(context)
        return report(step, metrics)

    return obeying


def budget_spent(context: StudyContext, seconds: float, running_epochs: float = 0.0) -> float:
    """Return the part of the study's time and epochs that is used up, the larger of the two; 0 where none is set.

    ``running_epochs`` is what the trials that run in this process will have trained when they end.
    """
    search = context.config.search
    elsewhere = context.membership.elsewhere()
    running_epochs += context.search.planned_epochs(elsewhere) if elsewhere else 0.0
    epochs = context.search.epochs_spent + running_epochs
    time_spent = seconds / search.timeout if search.timeout is not None else 0.0
    epochs_spent = epochs / search.max_epochs_total if search.max_epochs_total is not None else 0.0
    return max(time_spent, epochs_spent)


def infeasible(spec: TrialSpec, base: BaseModel) -> TrialResult:
    """Return the result of a trial that is not begun, because by the estimate not even one row at a time fits."""
    reason = "by the estimate a single row does not fit in the free memory"
    return TrialOutput(spec, base).result(TrialProgress(), Outcome.INFEASIBLE, reason)
