"""Trial queries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update

from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.errors import StudyStateError
from sweeper.retry import retried_methods
from sweeper.store.artifacts import replace_files
from sweeper.store.leases import require_held
from sweeper.store.records import Artifact, TrialKind, TrialRecord
from sweeper.store.rows import Queries, as_records, changed_study, columns, no_trial, now, study_id, trial_row
from sweeper.store.tables import TrialRow

# Made once, and without objects: they are executed while others wait for the lock.
_TABLE: Any = TrialRow.__table__
_BEGIN = _TABLE.insert()
_CHANGE = _TABLE.update().where(_TABLE.c.id == bindparam("trial"))
_BEGUN = select(_TABLE.c.id, _TABLE.c.outcome, _TABLE.c.started_at, _TABLE.c.finished_at).where(
    _TABLE.c.study_id == bindparam("study"), _TABLE.c.number == bindparam("number")
)
_FROM_RESULT = {
    name: getattr(TrialRow, name).property.columns[0].name
    for name in sorted(set(TrialResult.model_fields) - {"number", "started_at", "finished_at"})
}


@retried_methods()
class Trials(Queries):
    """The trials of a database."""

    def start(
        self,
        spec: TrialSpec,
        kind: TrialKind,
        *,
        at: datetime | None = None,
        chosen: Mapping[str, str] | None = None,
        base_model_fingerprint: str | None = None,
        total_steps: int = 0,
        confirms: int | None = None,
        restarts: int | None = None,
        clones: int | None = None,
        initial: int | None = None,
    ) -> None:
        """Store that a trial starts.

        Args:
            spec: What is asked of it.
            kind: Why it is run.
            at: When it starts; by default now.
            chosen: The adapter or model that was chosen, where there was a choice; kept with its parameters.
            base_model_fingerprint: Hash of its base model's weights and config.
            total_steps: Optimizer steps planned; 0 if unknown.
            confirms: The trial that it re-runs with a fresh seed.
            restarts: The interrupted trial that it runs again.
            clones: The trial whose configuration, changed by hand, it runs.
            initial: The trial whose weights it starts from.

        Raises:
            StudyStateError: If the study does not exist, or has a trial of that number.
        """
        with self._transactions.writing(spec.study) as session:
            study, change = changed_study(session, spec.study)
            connection = session.connection()
            begun = connection.execute(_BEGUN, {"study": study, "number": spec.number}).one_or_none()
            if begun is not None:
                if begun.started_at == at:
                    return  # stored before the connection was lost
                raise StudyStateError(f"trial {spec.number} of study {spec.study!r} was started before")
            row = {
                "study_id": study,
                "number": spec.number,
                "kind": kind,
                "confirms": confirms,
                "restarts": restarts,
                "clones": clones,
                "initial": initial,
                "total_steps": total_steps,
                "changed": change,
                "decisions_recorded": True,
                "seed": spec.seed,
                "parameters_json": {**(chosen or {}), **spec.parameters},
                "base_model": spec.model.name,
                "base_model_fingerprint": base_model_fingerprint,
                "device": spec.device,
                "started_at": at or now(),
            }
            connection.execute(_BEGIN, row)

    def finish(
        self, study: str, result: TrialResult, *, holder: str | None = None, artifacts: Sequence[Artifact] = ()
    ) -> None:
        """Store the result of a trial, and its files in place of those stored before.

        ``holder`` is the worker that must hold the trial; None requires no lease.

        Raises:
            StudyStateError: If it was never started, or has ended before: no trial is finished twice.
            LeaseLost: If ``holder`` does not hold it.
        """
        with self._transactions.writing(study) as session:
            connection, key = session.connection(), study_id(session, study)
            row = connection.execute(_BEGUN, {"study": key, "number": result.number}).one_or_none()
            if row is None:
                raise no_trial(study, result.number)
            if holder is not None:
                require_held(session, study, key, [result.number], holder)
            if row.outcome is result.outcome and row.finished_at == datetime.fromisoformat(result.finished_at):
                return  # stored before the connection was lost
            if row.outcome is not None:
                raise StudyStateError(f"trial {result.number} of study {study!r} has already ended: {row.outcome}")
            replace_files(session, key, result.number, artifacts)
            ending = {column: getattr(result, name) for name, column in _FROM_RESULT.items()}
            ending["started_at"] = datetime.fromisoformat(result.started_at)
            ending["finished_at"] = datetime.fromisoformat(result.finished_at)
            connection.execute(_CHANGE, {"trial": row.id, "changed": changed_study(session, study)[1], **ending})

    def reopen(self, study: str, number: int, *, holder: str | None = None) -> None:
        """Store that a stopped or paused trial continues; the state it was stopped with may now change.

        Raises:
            StudyStateError: If it was never started, or has ended for good.
            LeaseLost: If ``holder`` is named, and does not hold it.
        """
        with self._transactions.writing(study) as session:
            row = trial_row(session, study, number)
            if holder is not None:
                require_held(session, study, row.study_id, [number], holder)
            if row.outcome is not None and not row.outcome.is_open:
                raise StudyStateError(f"trial {number} of study {study!r} has already ended: {row.outcome}")
            row.outcome = row.reason = row.finished_at = None
            replace_files(session, row.study_id, number, ())
            row.changed = changed_study(session, study)[1]

    def interrupt(self, study: str, numbers: Collection[int], reason: str) -> tuple[int, ...]:
        """Mark those of some trials that have not ended as interrupted, and return their numbers."""
        with self._transactions.writing(study) as session:
            key, change = changed_study(session, study)
            unfinished = TrialRow.study_id == key, TrialRow.outcome.is_(None), TrialRow.number.in_(set(numbers))
            numbers = session.scalars(select(TrialRow.number).where(*unfinished).order_by(TrialRow.number)).all()
            ending = {"outcome": Outcome.INTERRUPTED, "reason": reason, "finished_at": now(), "changed": change}
            session.execute(update(TrialRow).where(*unfinished).values(ending))
            return tuple(numbers)

    def get(self, study: str, number: int) -> TrialRecord:
        """Return one trial.

        Raises:
            StudyStateError: If study or trial do not exist.
        """
        with self._transactions.reading() as session:
            where = TrialRow.id == trial_row(session, study, number).id
            return as_records(session, select(*columns(TrialRow, TrialRecord)).where(where), TrialRecord)[0]

    def counts(self, study: str) -> dict[Outcome | None, int]:
        """Return how many trials of a study have each outcome; None counts those that have not ended."""
        with self._transactions.reading() as session:
            query = select(TrialRow.outcome, func.count()).where(TrialRow.study_id == study_id(session, study))
            return {row[0]: row[1] for row in session.execute(query.group_by(TrialRow.outcome))}

    def best_value(self, study: str, direction: str) -> float | None:
        """Return the best value of a study's trials, ``direction`` being ``minimize`` or ``maximize``."""
        best = func.min if direction == "minimize" else func.max
        with self._transactions.reading() as session:
            where = TrialRow.study_id == study_id(session, study)
            return session.scalar(select(best(TrialRow.value)).where(where))

    def pages(self, study: str, size: int = 2_000) -> Iterator[tuple[TrialRecord, ...]]:
        """Yield the trials of a study by number, ``size`` at a time, so that memory does not grow with them."""
        last = -1
        while page := self.page(study, after=last, size=size):
            last = page[-1].number
            yield page

    def page(self, study: str, *, after: int, size: int) -> tuple[TrialRecord, ...]:
        """Return the first ``size`` trials of a study with a number above ``after``, by number."""
        beyond, order = TrialRow.number > after, [TrialRow.number]
        return self._fetch(TrialRecord, TrialRow, beyond, study=study, order_by=order, limit=size)

    def latest(self, study: str, limit: int) -> tuple[TrialRecord, ...]:
        """Return the ``limit`` trials of a study with the highest numbers, by number."""
        order = [TrialRow.number.desc()]
        return self._fetch(TrialRecord, TrialRow, study=study, order_by=order, limit=limit)[::-1]

    def all(self, study: str, *, since: int = 0) -> tuple[TrialRecord, ...]:
        """Return the trials of a study by number: all, or those that changed after the study's change ``since``."""
        changed = [TrialRow.changed > since] if since else []
        return self._fetch(TrialRecord, TrialRow, *changed, study=study, order_by=[TrialRow.number])
