"""The pruning seam bound: a trial's reports go to the database, to the search and to whoever watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime

from pydantic import ValidationError

from sweeper.config.space import ADAPTER, MODEL
from sweeper.config.trial import Decision, Outcome, TrialResult, TrialSpec
from sweeper.errors import SweeperError
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.claims import take_up
from sweeper.executors.lifecycle.retention import collect
from sweeper.executors.lifecycle.trial_spec import planned_steps
from sweeper.faults import passing
from sweeper.files.atomic import discard, write_atomically
from sweeper.paths import TrialPaths
from sweeper.redact import redact
from sweeper.search.attributes import NOT_BEGUN
from sweeper.search.candidate import Candidate
from sweeper.store import OrderState
from sweeper.store.trial_files import of_result
from sweeper.training.trial import BY_HAND

log = logging.getLogger(__name__)

QUOTA = "quota"
"""The kind of the event that says that a study needs more than its quota."""

_FLUSH_S = 1.0
"""Metrics are written in one transaction a second: a crash loses a second of a curve, never a trial."""


class Recorder:
    """Records one trial from its start to its end, and is its ``report``."""

    def __init__(self, context: StudyContext, candidate: Candidate, spec: TrialSpec) -> None:
        self._context = context
        self._candidate = candidate
        self._spec = spec
        self._waiting: list[tuple[int, int, dict[str, float], float]] = []
        self._begun = context.pending_orders.clock()
        self._flushed = time.monotonic()

    def start(self) -> None:
        """Record that the trial begins, and tell the search how long it will train."""
        context, candidate, spec = self._context, self._candidate, self._spec
        self.require_held()
        total, warmup_steps = planned_steps(context, spec)
        context.search.plan(
            spec.number, length=spec.hyperparameters.epochs, warmup_end_percent=100 * warmup_steps / total
        )
        context.database.trials.start(
            spec,
            candidate.kind,
            at=datetime.now(UTC),
            chosen={name: str(candidate.parameters[name]) for name in (ADAPTER, MODEL) if name in candidate.parameters},
            base_model_fingerprint=context.model_of(spec).fingerprint,
            total_steps=total,
            confirms=candidate.confirms,
            restarts=candidate.restarts,
            clones=candidate.clones,
            initial=candidate.initial,
        )
        context.pending_orders.running.add(spec.number)
        context.listener.trial_started(candidate, spec, total)

    def take_up(self, total_steps: int, seconds: float) -> None:
        """Record that a stopped or paused trial goes on."""
        self._begun -= seconds
        self._context.database.trials.reopen(self._spec.study, self._spec.number, holder=self._context.membership.token)
        self._context.pending_orders.running.add(self._spec.number)
        self._context.listener.trial_started(self._candidate, self._spec, total_steps)

    def announce(self, metrics: Mapping[str, float]) -> None:
        """Let the search know an evaluation before this trial, or one evaluated with it, is judged."""
        deciding = metrics.get(self._context.config.evaluation.metric)
        if deciding is not None:
            self._context.search.announce(self._spec.number, metrics["progress"], deciding)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """Take a trial's report; see ``Report``.

        Raises:
            LeaseLost: If the trial was reassigned to another worker.
        """
        context, number = self._context, self._spec.number
        values = {name: value for name, value in metrics.items() if name != "progress"}
        self._waiting.append((number, step, values, context.pending_orders.clock() - self._begun))
        if metrics["progress"] >= 1 or time.monotonic() - self._flushed >= _FLUSH_S:
            self._write_waiting()  # the whole curve before the result, which is what counts after a crash
        context.listener.trial_reported(number, step, metrics)
        if number in context.pending_orders.ending and metrics["progress"] < 1:
            return Decision.END
        if context.stop.is_set and metrics["progress"] < 1:
            return Decision.INTERRUPT
        deciding = metrics.get(context.config.evaluation.metric)
        decision = None if deciding is None else context.search.report(number, metrics["progress"], deciding)
        if decision is None:
            return Decision.CONTINUE
        self._write_waiting()  # a decision is stored with the reports it rests on
        context.database.decisions.add(self._spec.study, number, decision, holder=context.membership.token)
        if decision.pruned:
            return Decision.PAUSE if context.search.pauses else Decision.PRUNE
        return Decision.CONTINUE

    def flush(self) -> None:
        """Put everything reported so far into the database, before a checkpoint says that it was.

        Raises:
            LeaseLost: If the trial was reassigned to another worker.
        """
        self.require_held()
        self._write_waiting()

    def require_held(self) -> None:
        """Make sure that the trial is still this worker's, before files of it are written that another may be writing.

        Raises:
            LeaseLost: If it is another worker's.
        """
        self._context.database.leases.require(self._spec.study, self._spec.number, self._context.membership.token)

    def end(self, result: TrialResult) -> None:
        """Record the result; it is on disk already, so that a crash here loses nothing.

        Raises:
            LeaseLost: If the trial was reassigned to another worker; nothing is stored then.
        """
        self._write_waiting()
        finish(self._context, result)
        self._context.pending_orders.running.discard(result.number)
        self._context.listener.trial_ended(result)
        self._answer(result)
        if result.outcome is Outcome.COMPLETE:  # no other leaves an adapter
            keep_policy(self._context, ended=False)

    def _answer(self, result: TrialResult) -> None:
        """Answer whoever asked for the trial's end, unless it is only put off."""
        order = self._context.pending_orders.ending.pop(result.number, None)
        if order is None or result.outcome.is_open:
            return
        if (result.outcome, result.reason) == (Outcome.PRUNED, BY_HAND):
            self._context.answer(order, OrderState.DONE, BY_HAND)
        else:
            self._context.answer(order, OrderState.REFUSED, f"it had ended by itself: {result.outcome}")

    def _write_waiting(self) -> None:
        self._context.database.metrics.add(self._spec.study, self._waiting, holder=self._context.membership.token)
        self._waiting.clear()
        self._flushed = time.monotonic()


def drop(context: StudyContext, number: int) -> None:
    """Run a trial no more, without a word of it: it is another worker's."""
    context.search.forget(number)
    context.pending_orders.running.discard(number)
    context.pending_orders.ending.pop(number, None)
    context.database.leases.release(context.config.name, number, context.membership.token)
    context.listener.trial_left(number)
    context.listener.note(f"trial {number} was reassigned: this worker missed its heartbeats")


def give_up(context: StudyContext, number: int, error: Exception) -> None:
    """End a trial whose bookkeeping raised an error, so that the others continue: by its result, if it left one.

    Raises:
        Exception: The error itself, if the disk, the database or the user's input is at fault.
    """
    if isinstance(error, SweeperError) or passing(error):
        raise error
    log.error("trial %d cannot be recorded", number, exc_info=error)
    name, paths, at = context.config.name, context.paths.trial(number), datetime.now(UTC).isoformat()
    begun = any(trial.number == number for trial in context.database.trials.all(name))
    what = redact(f"{'its bookkeeping failed' if begun else NOT_BEGUN}: {type(error).__name__}: {error}")
    result = read_result(paths) if begun else None
    if result is None or result.outcome.is_open:
        result = TrialResult(
            number=number, outcome=Outcome.FAILED, reason=what, device=context.device, started_at=at, finished_at=at
        )
    if begun:
        write_atomically(paths.result, result.model_dump_json(indent=2) + "\n")
        finish(context, result)
        discard(paths.frozen)
    else:
        context.search.tell(number, result)
        context.database.leases.release(name, number, context.membership.token)
    context.pending_orders.running.discard(number)
    context.listener.note(f"trial {number}: {what}")


def finish(context: StudyContext, result: TrialResult) -> None:
    """Put a result into the database, tell the search, and let go of the trial; each step only if it is not done yet.

    Its files are where other workers find them before. An end needs no turn: the lease and the trial's state, which
    change at most once, keep two tellers apart. A trial that stays open is anyone's as soon as the search knows of it,
    so that its lease has to go in the same turn.

    Raises:
        LeaseLost: If the trial was reassigned to another worker; nothing that differs from its word is stored then.
    """
    name, number, worker = context.config.name, result.number, context.membership.token
    context.database.leases.require(name, number, worker)
    context.keep_trial(number)
    files = of_result(context.paths.trial(number), result)
    with context.alone() if result.outcome.is_open else nullcontext():
        if context.database.trials.get(name, number).outcome is None:
            context.database.trials.finish(name, result, holder=worker, artifacts=files)
        context.search.tell(number, result)
        context.database.leases.release(name, number, worker)


def keep_policy(context: StudyContext, *, ended: bool) -> None:
    """Remove the adapters that the study is not to keep, and say so where its quota cannot be held."""
    config = context.config
    collected = collect(context.database, context.paths, context.search, config, ended=ended)
    for each in collected.removed:
        context.forget_adapter(each.number)
    if collected.removed and ended:
        context.listener.note(str(collected))
    if collected.over_quota and not any(each.kind == QUOTA for each in context.database.events.all(config.name)):
        context.database.events.add(config.name, QUOTA, collected.over_quota)
        context.listener.note(collected.over_quota)


def prune_paused(context: StudyContext, number: int, reason: str) -> None:
    """End a paused trial, which is not to go on."""
    paths = context.paths.trial(number)
    context.fetch_trial(number)
    paused = read_result(paths)
    assert paused is not None and paused.outcome.is_open
    result = paused.model_copy(update={"outcome": Outcome.PRUNED, "reason": reason})
    take_up(context, number)
    context.database.trials.reopen(context.config.name, number)
    write_atomically(paths.result, result.model_dump_json(indent=2) + "\n")
    finish(context, result)
    discard(paths.frozen)
    context.listener.trial_ended(result)


def read_result(paths: TrialPaths) -> TrialResult | None:
    """Return the result a trial left on disk, or None where it has not ended, or its file is damaged.

    A damaged one is put aside: whoever asks goes on with the trial, or begins it again.
    """
    if not paths.result.is_file():
        return None
    try:
        return TrialResult.model_validate_json(paths.result.read_bytes())
    except ValidationError as error:
        aside = paths.result.with_suffix(".damaged")
        paths.result.replace(aside)
        log.warning("%s is no result, put aside as %s: %s", paths.result, aside.name, error.errors()[0]["msg"])
        return None
