"""Trials whose files are not as they were written: each is named, costs itself, and nothing else of the study."""

from __future__ import annotations

from datetime import UTC, datetime

from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.recovery import begin_again
from sweeper.files.atomic import write_atomically
from sweeper.store.trial_files import damage, folder_of


def can_go_on(context: StudyContext, number: int) -> bool:
    """Tell whether a frozen trial, which this worker holds, is as it was written.

    One that is not begins again, and whoever watches is told.
    """
    name, paths = context.config.name, context.paths.trial(number)
    found = damage(context.database, name, paths, "frozen")
    if not found:
        return True
    text = f"trial {number} begins again: what it was stopped with in {paths.frozen} is damaged ({'; '.join(found)})"
    context.database.events.add(name, "damaged", text, number=number)
    context.listener.note(text)
    with context.alone():
        context.search.forget(number)
        begin_again(context, [number])
        context.database.leases.release(name, number, context.membership.token)
    return False


def cannot_begin(context: StudyContext, spec: TrialSpec) -> TrialResult | None:
    """Return the result of a trial whose first weights are not what another trial has written; None where they are."""
    if spec.initial_trial is None:
        return None
    name, initial = context.config.name, context.paths.trial(spec.initial_trial)
    found = damage(context.database, name, initial, "adapter")
    if not found and not initial.adapter.is_dir():
        found = [f"the folder {folder_of(initial, 'adapter')} is gone"]
    if not found:
        return None
    at = datetime.now(UTC).isoformat()
    result = TrialResult(
        number=spec.number,
        outcome=Outcome.FAILED,
        reason=f"it cannot begin from the weights of trial {spec.initial_trial}: {'; '.join(found)}",
        device=spec.device,
        started_at=at,
        finished_at=at,
    )
    write_atomically(context.paths.trial(spec.number).result, result.model_dump_json(indent=2) + "\n")
    return result
