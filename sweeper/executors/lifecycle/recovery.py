"""Recovery of the trials that stopped, killed and silent workers left behind; each is continued once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import LeaseLost, StudyStateError
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.claims import take_up
from sweeper.executors.lifecycle.recorder import finish, read_result
from sweeper.files.atomic import discard, write_atomically
from sweeper.files.temporary import remove_leftovers
from sweeper.paths import TrialPaths


@dataclass
class _Left:
    """Open trials that nobody runs.

    Attributes:
        frozen: Those that can go on where they were.
        lost: Those that have to begin again.
        held: Those that somebody runs.
    """

    frozen: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)


def reclaim(context: StudyContext) -> int:
    """Put in order what workers left that are no more, while no other worker does the same.

    Finished trials are kept, frozen ones are left to the executor to go on with, the others are queued again. A trial
    whose worker has died while it ran is given ``max_retries`` more workers without coming to a new checkpoint.

    Returns:
        How many trials are still to be brought to their end, of those that nobody runs.
    """
    with context.alone():
        context.membership.news.clear()
        dead = context.membership.look()
        leases = context.database.leases.all(context.config.name)
        living = {one.token for one in context.database.workers.all(context.config.name)} - dead
        died_with = {lease.number for lease in leases if lease.worker not in living}
        left = _sort(context, {lease.number for lease in leases} - died_with, died_with)
        unfinished = [t.number for t in context.database.trials.all(context.config.name) if t.outcome is None]
        theirs = set(unfinished) - left.held - context.pending_orders.running
        context.database.trials.interrupt(context.config.name, theirs, "the process that ran it ended")
        begin_again(context, left.lost)
        for token in dead | {lease.worker for lease in leases if lease.worker not in living}:
            context.database.workers.leave(token)
            _look_where_it_hung(context, token)
        if dead:
            remove_leftovers(context.paths.folder)
    if dead and (left.frozen or left.lost):
        context.listener.note(f"{len(dead)} other worker(s) ended; what they ran goes on here or elsewhere")
    return len(left.frozen) + len(left.lost)


def _look_where_it_hung(context: StudyContext, token: str) -> None:
    report = context.paths.hang(token)
    if report.is_file() and report.stat().st_size == 0:
        report.unlink()
    elif report.is_file():
        context.listener.note(f"a worker hung and was ended; where it stood is in {report}")


def _sort(context: StudyContext, held: set[int], died_with: Collection[int]) -> _Left:
    left, name = _Left(held=held), context.config.name
    known = {trial.number for trial in context.database.trials.all(name)}
    for number in context.search.interrupted():
        if number in held:
            continue
        context.database.leases.release(name, number)
        paths = context.paths.trial(number)
        context.fetch_trial(number)
        result = read_result(paths) if number in known else None
        if result is not None and not result.outcome.is_open:
            _finish_for_another(context, result)
        elif number in known and number in died_with and _is_given_up(context, number):
            continue
        elif number in known and paths.is_frozen:
            left.frozen.append(number)
        else:
            left.lost.append(number)
    return left


def _finish_for_another(context: StudyContext, result: TrialResult) -> None:
    """Finish a trial whose worker wrote how it ended; that one may be alive after all, and tell at this moment."""
    number = result.number
    try:
        take_up(context, number)
        finish(context, result)
    except (LeaseLost, StudyStateError):
        context.search.forget(number)
        context.database.leases.release(context.config.name, number, context.membership.token)
        if number in context.search.interrupted():
            raise


def _is_given_up(context: StudyContext, number: int) -> bool:
    """Count that a worker died with a trial; where too many have by now, fail it."""
    most, paths = context.config.executor.max_retries, context.paths.trial(number)
    died = context.search.count_death(number, checkpoint=_checkpoint(paths))
    if died <= most:
        return False
    record = context.database.trials.get(context.config.name, number)
    result = TrialResult(
        number=number,
        outcome=Outcome.FAILED,
        reason=f"its worker died {died} times in a row without a checkpoint in between; max_retries is {most}",
        device=record.device or context.device,
        started_at=record.started_at.isoformat(),
        finished_at=datetime.now(UTC).isoformat(),
    )
    take_up(context, number)
    context.database.trials.reopen(context.config.name, number)
    write_atomically(paths.result, result.model_dump_json(indent=2) + "\n")
    finish(context, result)
    discard(paths.frozen)
    context.listener.trial_ended(result)
    return True


def _checkpoint(paths: TrialPaths) -> int:
    """Return what tells a trial's checkpoint from an earlier one; 0 where it has none."""
    return paths.frozen.stat().st_mtime_ns if paths.is_frozen else 0


def begin_again(context: StudyContext, numbers: Sequence[int]) -> None:
    """Queue interrupted or paused trials again, from their beginning."""
    name = context.config.name
    with context.alone():
        paused = {t.number for t in context.database.trials.all(name) if t.outcome is Outcome.PAUSED}
        for number in numbers:
            context.search.requeue(number)
            context.database.artifacts.forget(name, number)
            discard(context.paths.trial(number).frozen)
            if number in paused:
                context.database.trials.reopen(name, number)
        context.database.trials.interrupt(name, numbers, "begun again under another number")
    if numbers:
        context.listener.note(f"{len(numbers)} interrupted trial(s) begin again")


def begin_unreadable_again(context: StudyContext, readable: Callable[[TrialPaths], bool]) -> None:
    """Queue again, from their beginning, the trials that wait on disk in a form that this engine cannot read."""
    with context.alone():
        elsewhere = context.membership.elsewhere()
        waiting = [number for number in context.search.interrupted() if number not in elsewhere]
        for number in waiting:
            context.fetch_trial(number)
        begin_again(context, [number for number in waiting if not readable(context.paths.trial(number))])
