"""A study from its file to its registered winner: the whole flow on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from sweeper.config.backend import in_own_processes
from sweeper.config.executor import SharedExecutorConfig
from sweeper.config.loader import StudyFile
from sweeper.config.pipeline import name_to_resume
from sweeper.errors import LeaseLost, StudyInterrupted
from sweeper.executors.artifact_store import ArtifactStore
from sweeper.executors.base import Executor
from sweeper.executors.context import StudyContext
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.lifecycle.claims import wait
from sweeper.executors.lifecycle.orders import MoreToTrain, has_work, more_to_train, process_orders, refuse_outdated
from sweeper.executors.lifecycle.recorder import keep_policy
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.executors.listener import Listener, guarded
from sweeper.executors.packed.executor import PackedExecutor
from sweeper.executors.stop_request import StopRequest
from sweeper.executors.watchdog import Watchdog
from sweeper.executors.workers.per_gpu import PerGpuExecutor
from sweeper.executors.workers.ray import RayExecutor
from sweeper.paths import Home
from sweeper.registry.merged_base import pinned
from sweeper.retry import RetryPolicy, waiting
from sweeper.store import SCORING, Database, StudyState, bind
from sweeper.study.context import begin, open_stored
from sweeper.study.existing import apply_changed_settings, is_begun
from sweeper.study.final_evaluation import StudyResult, find_winner
from sweeper.study.resolve import resolve_study
from sweeper.training.device import resolve_device

EXECUTORS: dict[str, Callable[[], Executor]] = {
    "packed": PackedExecutor,
    "inline": InlineExecutor,
    "per_gpu": PerGpuExecutor,
    "ray": RayExecutor,
}


def run_study(
    file: StudyFile,
    *,
    home: Home | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    force: bool = False,
) -> StudyResult:
    """Search, train, score and register: everything a study file asks for.

    Args:
        file: The study.
        home: Where everything is kept; ``SWEEPER_HOME`` if left out.
        listener: Told of all progress.
        stop: Set it to stop after the step under way.
        force: Register the winner even if it does not beat the base model.

    Raises:
        UserError: If the study, its data, its model or this machine is at fault; nothing is changed then.
        StudyInterrupted: If it was stopped; `resume_study` goes on.
        SweeperError: If no trial was completed.
    """
    home, listener, stop = home or Home.current(), guarded(listener), StopRequest() if stop is None else stop
    bind(home, file.config.storage)
    there = Database.exists(home.database)  # one that cannot be reached now is told at once, and waited for later
    with waiting(RetryPolicy(listener.note, lambda: stop.is_set)):
        return _run(replace(file, config=pinned(file.config, home)), there, home, listener, stop, force=force)


def _run(
    file: StudyFile, there: bool, home: Home, listener: Listener, stop: StopRequest, *, force: bool
) -> StudyResult:
    """Begin a study, or join it where it was begun; ``there`` is whether there is a database."""
    config = file.config
    if there:  # looked at before anything is downloaded, and made only once the study can run
        with Database.open(home.database, create=True) as database:
            begun = is_begun(file, home, database)
        if begun:
            return _join(file, home, listener, stop, force=force)
    device = resolve_device(config.executor.device)
    resolved = resolve_study(file, fetch=True, home=home, on_progress=listener.stage)
    with Database.open(home.database, create=True) as database:
        with database.study_lock(config.name):  # of two processes that begin it at once, one does
            begun = is_begun(file, home, database)
            context = None if begun else begin(file, resolved, device, home, database, listener, stop)
        if context is not None:
            return _conduct(context, home, force=force)
    return _join(file, home, listener, stop, force=force)


def _join(file: StudyFile, home: Home, listener: Listener, stop: StopRequest, *, force: bool) -> StudyResult:
    """Run a study together with the processes that run it already, or go on with it where none does any more.

    Where and how its trials run may have changed: whoever goes on with it from now on goes by the new file.
    """
    with Database.open(home.database, create=False) as database, database.study_lock(file.config.name):
        apply_changed_settings(file.config, database, listener)
    listener.note(f"study {file.config.name} was begun with this very file: this process joins it")
    return resume_study(file.config.name, home=home, listener=listener, stop=stop, force=force)


def resume_study(
    name: str,
    *,
    home: Home | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    force: bool = False,
) -> StudyResult:
    """Go on with a study that was stopped, killed or finished: what is done stays, what is missing is done.

    Where other processes run it, this one shares the trials with them.

    Raises:
        StudyStateError: If there is no such study, or what it began with is gone or was changed.
        StudyInterrupted: If it was stopped again.
        SweeperError: If no trial was completed.
    """
    home, listener, stop = home or Home.current(), guarded(listener), StopRequest() if stop is None else stop
    patience = RetryPolicy(listener.note, lambda: stop.is_set)
    with Database.open(home.database, create=False) as database, waiting(patience):
        ended = database.studies.get(name).state is StudyState.FINISHED
        context = open_stored(name, home, database, listener, stop)
        unfinished = reclaim(context)
        searched = ended and not unfinished and not has_work(context)
        return _conduct(context, home, force=force, searched=searched)


def work(
    name: str,
    *,
    home: Home | None = None,
    device: str | None = None,
    n_workers: int = 1,
    artifact_store: ArtifactStore | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Run trials of a study that another process has begun and will score, until none is left to run.

    Args:
        name: The study.
        home: Where everything is kept; ``SWEEPER_HOME`` if left out.
        device: What to train on; what the study file says if left out.
        n_workers: Number of workers of the study, this one included, as far as is known.
        artifact_store: Shared storage for trial files, for a worker with a home of its own.
        listener: Told of all progress.
        stop: Set it to stop after the step under way.

    Raises:
        StudyStateError: If there is no such study, or what it began with is gone or was changed.
        StudyInterrupted: If it was stopped.
    """
    home, listener, stop = home or Home.current(), guarded(listener), StopRequest() if stop is None else stop
    patience = RetryPolicy(listener.note, lambda: stop.is_set)
    with Database.open(home.database, create=False) as database, waiting(patience):
        context = open_stored(name, home, database, listener, stop, device=device)
        context.artifact_store, context.n_workers = artifact_store or context.artifact_store, n_workers
        with context.membership, waiting(_patience(context)), _watched(context):
            reclaim(context)
            context.pending_orders.paused = database.studies.get(name).state is StudyState.PAUSED
            PackedExecutor().run(context)
        if stop.is_set:
            raise StudyInterrupted(f"stopped; `sweeper resume {name_to_resume(context.paths)}` goes on")


def _conduct(context: StudyContext, home: Home, *, force: bool, searched: bool = False) -> StudyResult:
    """Run the trials, unless they were, then find the winner; the database always says how the study stands."""
    state = StudyState.INTERRUPTED
    studies, name = context.database.studies, context.config.name
    with context.membership, waiting(_patience(context)), _watched(context):
        refuse_outdated(context, context.pending_orders.since)
        if studies.get(name).state is StudyState.PAUSED and not context.membership.alone():
            context.pending_orders.paused = True
        else:
            studies.set_state(name, StudyState.RUNNING)
        executor = EXECUTORS[context.config.executor.kind]()
        try:
            while True:
                if not searched:
                    executor.run(context)
                if context.stop.is_set:
                    raise StudyInterrupted(f"stopped; `sweeper resume {name_to_resume(context.paths)}` goes on")
                context.pending_orders.changed = False
                with _scoring(context):
                    process_orders(context)  # what was asked for while another process scored, or of workers before
                    if context.pending_orders.changed and more_to_train(context):
                        searched = False
                        continue
                    state, context.pending_orders.changed = StudyState.FINISHED, False
                    with suppress(MoreToTrain, LeaseLost):  # to be trained first, or another worker scores by now
                        result = find_winner(context, partial(executor.base, context), home, force=force)
                        keep_policy(context, ended=True)
                        return result
                state, searched = StudyState.INTERRUPTED, False
        except (StudyInterrupted, KeyboardInterrupt):
            state = StudyState.INTERRUPTED
            raise
        finally:
            if state is StudyState.FINISHED or context.membership.alone():
                studies.set_state(name, state)
            refuse_outdated(context)


def _patience(context: StudyContext) -> RetryPolicy:
    def stopped() -> bool:
        context.keep_alive()
        return context.stop.is_set

    def waited(seconds: float) -> None:
        context.pending_orders.stood_still(seconds)
        context.membership.news.set()  # reconcile what was stored unheard

    return RetryPolicy(context.listener.note, stopped, waited)


@contextmanager
def _watched(context: StudyContext) -> Iterator[None]:
    """End this process where it hangs, unless it only waits for processes that are watched themselves."""
    executor = context.config.executor
    waits = isinstance(executor, SharedExecutorConfig) or in_own_processes(context.config.backend)
    with Watchdog(
        None if waits else executor.stall_timeout_s, context.paths.hang(context.membership.token)
    ) as watchdog:
        context.keep_alive = watchdog.keep_alive
        yield


@contextmanager
def _scoring(context: StudyContext) -> Iterator[None]:
    """Score while no other worker of the study does, once the one that does is done.

    Raises:
        StudyInterrupted: If the user asked to stop.
    """
    name, worker = context.config.name, context.membership.token
    while True:
        with suppress(LeaseLost):
            context.database.leases.take(name, SCORING, worker)
            break
        process_orders(context)
        if context.stop.is_set:
            raise StudyInterrupted("stopped while another process scores")
        context.listener.stage("another process scores on the test split")
        wait()
    try:
        yield
    finally:
        context.database.leases.release(name, SCORING, worker)
