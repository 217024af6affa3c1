"""Checks that sweeper's rows, Optuna's tables and the results on disk agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial

from pydantic import ValidationError

from sweeper.config.space import ADAPTER, MODEL
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.search import attributes as attribute
from sweeper.search.storages.stored_trials import StoredTrial
from sweeper.store import SCORING, StudyState, TrialKind, TrialRecord
from sweeper.store.trial_files import of_result
from sweeper.study.orders import described, obstacle, withdraw
from sweeper.upkeep.facts import Facts, Inconsistency

_GONE = "the process that ran it ended"
_ALIKE: dict[Outcome, tuple[str, ...]] = {
    Outcome.COMPLETE: ("complete", "fail"),  # without its deciding metric it counts as failed in the search
    Outcome.PRUNED: ("pruned",),
    Outcome.DIVERGED: ("pruned",),
    Outcome.INFEASIBLE: ("pruned",),
    Outcome.FAILED: ("fail",),
    Outcome.PAUSED: ("running",),
    Outcome.INTERRUPTED: ("running", "fail"),
}
"""The states in the search that agree with an outcome in the database."""


def search_is_there(facts: Facts) -> Iterator[Inconsistency]:
    """Check that the study has its search."""
    if facts.stored is None:
        yield Inconsistency(
            "no search",
            f"the database has study {facts.name!r}, but no search of that name in Optuna's tables",
            "restore the database from a backup; the trials' results can be read, but the study cannot be resumed",
        )


def trials_agree(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every trial is in both, in states that agree, and that its end is recorded."""
    if facts.stored is None or facts.alive:
        return
    for number, trial in facts.trials.items():
        stored = facts.stored.get(number)
        if stored is None:
            yield Inconsistency(
                "trial without search",
                f"trial {number} is in the database, but not in Optuna's tables",
                "restore the database from a backup: the search does not know this trial's parameters",
            )
        elif found := _disagreement(facts, trial, stored):
            yield found
    for number in sorted(facts.stored.keys() - facts.trials.keys()):
        if found := _without_row(facts, facts.stored[number]):
            yield found


def _disagreement(facts: Facts, trial: TrialRecord, stored: StoredTrial) -> Inconsistency | None:
    number, is_open = trial.number, trial.outcome is None or trial.outcome.is_open
    left = _left(facts, number) if is_open else None
    if isinstance(left, Inconsistency):
        return left
    ended = left is not None and not left.outcome.is_open and not stored.was_interrupted
    if ended and left is not None and stored.state in ("running", *_ALIKE[left.outcome]):
        return Inconsistency(
            "result not recorded",
            f"trial {number} ended ({left.outcome}) by its result.json, but the database has no result",
            "`--repair` records the result, as `sweeper resume` would",
            partial(_record, facts, left, stored),
            f"recorded the result of trial {number}: {left.outcome}",
        )
    if trial.outcome is None:
        return _still_running(facts, trial, stored)
    if stored.state == "running" and not trial.outcome.is_open:
        return Inconsistency(
            "end not told",
            f"trial {number} has ended ({trial.outcome}) in the database, but is running in the search",
            "`--repair` tells the search how it ended",
            partial(_tell, facts, trial),
            f"told the search that trial {number} ended: {trial.outcome}",
        )
    if stored.state not in _ALIKE[trial.outcome] or _failed_only_there(trial, stored):
        return Inconsistency(
            "states disagree",
            f"trial {number} is {trial.outcome} in the database, and {stored.state} in the search",
            "one of the two was changed by hand, or is from another backup: restore both from one",
        )
    return None


def _failed_only_there(trial: TrialRecord, stored: StoredTrial) -> bool:
    complete_here = trial.outcome is Outcome.COMPLETE and stored.state == "fail"
    return complete_here and stored.attributes.get(attribute.OUTCOME) != Outcome.FAILED


def _still_running(facts: Facts, trial: TrialRecord, stored: StoredTrial) -> Inconsistency | None:
    if stored.state == "running" or stored.was_interrupted:
        return Inconsistency(
            "running without a process",
            f"trial {trial.number} is running in the database, but no process runs the study",
            "`--repair` marks it as interrupted; `sweeper resume` continues it, or begins it again",
            partial(facts.database.trials.interrupt, facts.name, [trial.number], _GONE),
            f"marked trial {trial.number} as interrupted",
        )
    return Inconsistency(
        "states disagree",
        f"trial {trial.number} is running in the database, is {stored.state} in the search, and left no result",
        "restore the study from a backup: its measurements are missing",
    )


def _left(facts: Facts, number: int) -> TrialResult | Inconsistency | None:
    """Return the result of an open trial on disk, or its inconsistency."""
    paths = facts.paths.trial(number)
    try:
        if not paths.result.is_file():
            return None
        return TrialResult.model_validate_json(paths.result.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        return Inconsistency(
            "result unreadable",
            f"{paths.result} is damaged ({type(error).__name__})",
            "`--repair` removes it; the trial continues from where it was stopped, or begins again",
            paths.result.unlink,
            f"removed {paths.result}",
        )


def _without_row(facts: Facts, stored: StoredTrial) -> Inconsistency | None:
    number = stored.number
    if stored.state == "waiting" or stored.was_interrupted or stored.never_began:
        return None
    if stored.state == "running":
        return Inconsistency(
            "search without trial",
            f"the search has started trial {number}, but the database has none of that number: its process ended",
            "`--repair` queues it again",
            lambda: facts.search().requeue(number),
            f"queued trial {number} again",
        )
    paths, left = facts.paths.trial(number), _left(facts, number)
    if paths.spec.is_file() and isinstance(left, TrialResult) and stored.state in _ALIKE[left.outcome]:
        return Inconsistency(
            "search without trial",
            f"trial {number} is {stored.state} in the search, but the database has none of that number",
            "`--repair` records it by its spec.json and result.json",
            partial(_restore, facts, stored, left),
            f"recorded trial {number}: {left.outcome}",
        )
    return Inconsistency(
        "search without trial",
        f"trial {number} is {stored.state} in the search, but neither the database nor the files have it",
        "restore the database from a backup",
    )


def leases_are_held(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every worker is alive, and that every lease belongs to a worker."""
    alive = {worker.token for worker in facts.database.workers.alive(facts.name)}
    known = {worker.token: worker for worker in facts.database.workers.all(facts.name)}
    for token, worker in known.items():
        if token not in alive:
            yield Inconsistency(
                "dead worker",
                f"worker {token[:8]} (process {worker.pid} on {worker.host.split()[0]}) has ended",
                "`--repair` releases its trials, as any other worker would",
                partial(facts.database.workers.leave, token),
                f"released the trials of worker {token[:8]}",
            )
    for lease in facts.database.leases.all(facts.name):
        if lease.worker not in known:
            what = "the final scoring" if lease.number == SCORING else f"trial {lease.number}"
            yield Inconsistency(
                "stale lease",
                f"{what} is held by worker {lease.worker[:8]}, which no longer exists",
                "`--repair` releases it",
                partial(facts.database.leases.release, facts.name, lease.number),
                f"released {what}",
            )


def state_is_true(facts: Facts) -> Iterator[Inconsistency]:
    """Check that a running study has a process."""
    if facts.alive or facts.study.state not in (StudyState.RUNNING, StudyState.PAUSED):
        return
    yield Inconsistency(
        "no process",
        f"study {facts.name!r} is {facts.study.state} in the database, but no process runs it",
        "`--repair` marks it as interrupted; `sweeper resume` continues it",
        partial(facts.database.studies.set_state, facts.name, StudyState.INTERRUPTED),
        f"marked study {facts.name} as interrupted",
    )


def orders_can_be_done(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every waiting order can still be done."""
    for order in () if facts.alive else facts.database.orders.waiting(facts.name):
        reason = obstacle(facts.home, facts.database, order, facts.name)
        if reason is not None:
            yield Inconsistency(
                "impossible order",
                f"order {order.id} ({described(order)}) waits, but can never be done: {reason}",
                f"`--repair` withdraws it, as `sweeper orders {facts.name} --withdraw {order.id}` does",
                partial(withdraw, facts.database, facts.name, order.id, actor="doctor"),
                f"withdrew order {order.id}",
            )


# ---- repairs


def _record(facts: Facts, result: TrialResult, stored: StoredTrial) -> None:
    trial = facts.database.trials.get(facts.name, result.number)
    if trial.outcome is not None:
        facts.database.trials.reopen(facts.name, result.number)
    files = of_result(facts.paths.trial(result.number), result)
    facts.database.trials.finish(facts.name, result, artifacts=files)
    if stored.state == "running":
        _tell(facts, facts.database.trials.get(facts.name, result.number))


def _tell(facts: Facts, trial: TrialRecord) -> None:
    search = facts.search()
    search.take_up(trial.number)
    search.tell(trial.number, _result_of(trial))


def _result_of(trial: TrialRecord) -> TrialResult:
    """Return the result that a trial's row was made from."""
    values = {each.name: getattr(trial, each.name) for each in fields(trial) if each.name in TrialResult.model_fields}
    at = {name: values[name].isoformat() for name in ("started_at", "finished_at")}
    return TrialResult.model_validate({**values, **at})


def _restore(facts: Facts, stored: StoredTrial, result: TrialResult) -> None:
    text = facts.paths.trial(stored.number).spec.read_text(encoding="utf-8")
    spec, known = TrialSpec.model_validate_json(text), stored.attributes
    values = facts.search().values(stored.number)
    facts.database.trials.start(
        spec,
        TrialKind(known[attribute.KIND]),
        chosen={name: str(values[name]) for name in (ADAPTER, MODEL) if name in values},
        total_steps=result.total_steps,
        confirms=known.get(attribute.CONFIRMS),
        restarts=known.get(attribute.RESTARTS),
        clones=known.get(attribute.CLONES),
        initial=known.get(attribute.INITIAL),
    )
    files = of_result(facts.paths.trial(stored.number), result)
    facts.database.trials.finish(facts.name, result, artifacts=files)
