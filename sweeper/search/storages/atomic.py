"""Optuna's storage for many processes on one database: states change at most once, and reads cost what is new."""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, bindparam, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from sweeper.retry import is_retry, retried_methods
from sweeper.search.storages import trial_rows as rows
from sweeper.search.storages.transactions import TransactionalStorage

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
_FINITE_ONLY = models.TrialValueModel.value_to_stored_repr

_STUDY_USER_ATTRS = models.StudyUserAttributeModel.__table__
_STUDY_SYSTEM_ATTRS = models.StudySystemAttributeModel.__table__
_UNIQUE = {
    _STUDY_USER_ATTRS: ("study_id", "key"),
    _STUDY_SYSTEM_ATTRS: ("study_id", "key"),
    rows.VALUES: ("trial_id", "objective"),
    rows.CURVES: ("trial_id", "step"),
    rows.USER_ATTRS: ("trial_id", "key"),
    rows.SYSTEM_ATTRS: ("trial_id", "key"),
}
_HEAD_TO_CHANGE = (
    select(rows.TRIALS.c.study_id, rows.TRIALS.c.state)
    .where(rows.TRIALS.c.trial_id == bindparam("key"))
    .with_for_update(key_share=True)
)
_PUT_PARAM = {insert: insert(rows.PARAMS).on_conflict_do_nothing() for insert in (postgresql.insert, sqlite.insert)}

_FOR_THE_CACHE = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids")
"""Private methods that the cache which Optuna puts before a storage calls."""


@retried_methods(*_FOR_THE_CACHE, unless=lambda storage: storage._current() is not None)
class AtomicStorage(TransactionalStorage):
    """Optuna's own tables, read and written another way. For SQLite and PostgreSQL.

    - A trial's state is changed by one statement that names the state it must have had: an enqueued trial is handed
      out once, and what has ended cannot end again.
    - ``transaction`` and ``gathered`` put many writes into one transaction; Optuna has one for every attribute.
    - Reading asks every unfinished trial for a mark (see ``trial_rows.marks``) and loads only those that changed;
      Optuna loads them all, curves included, at every read. Trials are loaded with one query a table.
    - Reads take no write lock: SQLite lets them run beside a writer.

    Processes with Optuna's own storage may read and write the same database; but if they change an attribute or report
    of a running trial *in place*, processes with this storage see it only when the trial changes otherwise, or ends.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__(url, engine_kwargs)
        self._open: dict[int, tuple[rows.Mark, FrozenTrial]] = {}
        self._insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        self._puts = {table: self._upsert(table, unique) for table, unique in _UNIQUE.items()}

    def _forget(self) -> None:
        self._open.clear()

    # Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study; see ``BaseStorage``."""
        with self.transaction():
            return int(super().create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials; see ``BaseStorage``."""
        with self.transaction():
            super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute; see ``BaseStorage``."""
        self._set_study_attr(_STUDY_USER_ATTRS, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's; see ``BaseStorage``."""
        self._set_study_attr(_STUDY_SYSTEM_ATTRS, study_id, key, value)

    def _set_study_attr(self, table: Table, study_id: int, key: str, value: Any) -> None:
        with self.transaction() as connection:
            self._require_study(connection, study_id)
            row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
            self._put(connection, table, [row])

    def _require_study(self, connection: Connection, study_id: int, *, lock: bool = False) -> None:
        query = select(rows.STUDIES.c.study_id).where(rows.STUDIES.c.study_id == study_id)
        if connection.scalar(query.with_for_update(key_share=True) if lock else query) is None:
            raise KeyError(models.NOT_FOUND_MSG)

    # Writing trials

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        trial = copy.deepcopy(template_trial) if template_trial else _new_trial()
        with self.transaction() as connection:
            self._require_study(connection, study_id, lock=True)  # numbers are assigned one at a time
            trials = rows.TRIALS
            last = select(trials.c.number).where(trials.c.study_id == study_id)
            last = last.order_by(trials.c.trial_id.desc()).limit(1)
            if is_retry() and (stored := self._stored(connection, study_id, trial)) is not None:
                return stored
            trial.number = (-1 if (number := connection.scalar(last)) is None else number) + 1
            created = connection.execute(
                trials.insert().values(
                    number=trial.number,
                    study_id=study_id,
                    state=trial.state,
                    datetime_start=_utc(trial.datetime_start),
                    datetime_complete=_utc(trial.datetime_complete),
                )
            )
            assert created.inserted_primary_key is not None
            trial._trial_id = int(created.inserted_primary_key[0])
            self._fill(connection, study_id, trial)
        return trial

    def _stored(self, connection: Connection, study_id: int, trial: FrozenTrial) -> FrozenTrial | None:
        """Return the last trial, if it is this one: created before, in a transaction whose answer was lost."""
        newest = select(func.max(rows.TRIALS.c.trial_id)).where(rows.TRIALS.c.study_id == study_id)
        found = rows.heads(connection, f"trial_id = {int(connection.scalar(newest) or 0)}")
        if not trial.user_attrs or not found:
            return None
        (last,) = rows.load(connection, found)
        return last if (last.state, last.user_attrs) == (trial.state, trial.user_attrs) else None

    def _fill(self, connection: Connection, study_id: int, trial: FrozenTrial) -> None:
        key = trial._trial_id
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            internal = distribution.to_internal_repr(value)
            self._put_param(connection, study_id, key, name, internal, distribution, None)
        self._put_values(connection, key, trial.values or ())
        for table, found in (
            (rows.USER_ATTRS, rows.attributes(key, trial.user_attrs)),
            (rows.SYSTEM_ATTRS, rows.attributes(key, trial.system_attrs)),
            (rows.CURVES, rows.curve(key, trial.intermediate_values.items())),
        ):
            if found:
                connection.execute(table.insert(), found)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if previous_distribution is not None:
            check_distribution_compatibility(previous_distribution, distribution)

        def write(connection: Connection) -> None:
            study = self._require_updatable(connection, trial_id)
            self._put_param(
                connection, study, trial_id, param_name, param_value_internal, distribution, previous_distribution
            )

        self._write(write)

    def _put_param(
        self,
        connection: Connection,
        study_id: int,
        trial_id: int,
        name: str,
        internal: float,
        distribution: BaseDistribution,
        previous: BaseDistribution | None,
    ) -> None:
        if previous is None:
            query = select(rows.PARAMS.c.distribution_json).join(rows.TRIALS).limit(1)
            query = query.where(rows.TRIALS.c.study_id == study_id, rows.PARAMS.c.param_name == name)
            before = connection.scalar(query)
            if before is not None:
                check_distribution_compatibility(json_to_distribution(before), distribution)
        row = {"trial_id": trial_id, "param_name": name, "param_value": internal}
        row["distribution_json"] = distribution_to_json(distribution)
        connection.execute(_PUT_PARAM[self._insert], row)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change a trial's state and return whether that was possible: only a waiting trial can begin to run.

        Raises:
            UpdateFinishedTrialError: If it has ended.
            KeyError: If there is no such trial.
        """
        trials, now = rows.TRIALS, datetime.now(UTC).replace(tzinfo=None)
        before = (TrialState.WAITING,) if state == TrialState.RUNNING else _UNFINISHED
        changes: dict[str, Any] = {"state": state}
        if state == TrialState.RUNNING:
            changes["datetime_start"] = now
        if state.is_finished():
            changes["datetime_complete"] = now
        with self.transaction() as connection:
            self._local.updatable.pop(trial_id, None)
            change = update(trials).where(trials.c.trial_id == trial_id, trials.c.state.in_(before)).values(changes)
            if connection.execute(change).rowcount == 0:
                self._require_updatable(connection, trial_id)
                return False
            self._put_values(connection, trial_id, values or ())
        return True

    def _put_values(self, connection: Connection, trial_id: int, values: Sequence[float]) -> None:
        found = []
        for objective, value in enumerate(values):
            stored, kind = _FINITE_ONLY(value)
            found.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
        self._put(connection, rows.VALUES, found)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Store a report; see ``BaseStorage``."""
        self._set_of_trial(rows.CURVES, trial_id, rows.curve(trial_id, [(step, intermediate_value)]))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a trial; see ``BaseStorage``."""
        self._set_of_trial(rows.USER_ATTRS, trial_id, rows.attributes(trial_id, {key: value}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's of a trial; see ``BaseStorage``."""
        self._set_of_trial(rows.SYSTEM_ATTRS, trial_id, rows.attributes(trial_id, {key: value}))

    def _set_of_trial(self, table: Table, trial_id: int, found: list[dict[str, Any]]) -> None:
        def write(connection: Connection) -> None:
            self._require_updatable(connection, trial_id)
            self._put(connection, table, found)

        self._write(write)

    def _put(self, connection: Connection, table: Table, found: list[dict[str, Any]]) -> None:
        if found:
            connection.execute(self._puts[table], found)

    def _upsert(self, table: Table, unique: Sequence[str]) -> Any:
        """Return the statement that inserts or updates rows; updated ones get a new key, which tells readers."""
        (key,) = table.primary_key
        statement = self._insert(table)
        changed: dict[str, Any] = {
            column.name: statement.excluded[column.name]
            for column in table.columns
            if column is not key and column.name not in unique
        }
        if self.engine.dialect.name == "postgresql":
            changed[key.name] = text("DEFAULT")
        else:
            changed[key.name] = select(func.max(key) + 1).scalar_subquery()
        return statement.on_conflict_do_update(index_elements=list(unique), set_=changed)

    def _require_updatable(self, connection: Connection, trial_id: int) -> int:
        """Return the study of an unfinished trial; no other process can end it before this transaction is over."""
        known: dict[int, int] = self._local.updatable
        if trial_id not in known:
            found = connection.execute(_HEAD_TO_CHANGE, {"key": trial_id}).one_or_none()
            if found is None:
                raise KeyError(models.NOT_FOUND_MSG)
            self.check_trial_is_updatable(trial_id, found.state)
            known[trial_id] = int(found.study_id)
        return known[trial_id]

    # Reading trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial, as a new object."""
        with self._reading() as connection:
            found = rows.heads(connection, f"trial_id = {int(trial_id)}")
            if not found:
                raise KeyError(models.NOT_FOUND_MSG)
            return rows.load(connection, found)[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        everything, wanted = trial_id_greater_than < 0, []
        with self._reading() as connection:
            where = [f"trial_id > {int(trial_id_greater_than)}"]
            if not everything:
                where += rows.among(sorted(key for key in included_trial_ids if key <= trial_id_greater_than))
            for part in where:
                wanted += rows.heads(connection, f"study_id = {int(study_id)} AND {part}")
            if not wanted:
                self._require_study(connection, study_id)
            found = self._present(connection, sorted(wanted), study_id if everything else None)
        return [trial for trial in found if states is None or trial.state in states]

    def _present(self, connection: Connection, wanted: list[rows.Head], study_id: int | None) -> list[FrozenTrial]:
        """Return trials as they are now; unfinished ones that have not changed are the objects returned before."""
        marks = rows.marks(connection, [head for head in wanted if not head.state.is_finished()])
        same: dict[int, FrozenTrial] = {}
        for trial_id, mark in marks.items():
            before, trial = self._open.get(trial_id, (None, None))
            if trial is not None and before == mark:
                same[trial_id] = trial
        changed = [head for head in wanted if head.trial_id not in same]
        loaded = rows.load(connection, changed, study_id if not same else None)
        for head, trial in zip(changed, loaded, strict=True):
            if head.trial_id in marks:
                self._open[head.trial_id] = marks[head.trial_id], trial
            else:
                self._open.pop(head.trial_id, None)
        return sorted([*loaded, *same.values()], key=lambda trial: trial._trial_id)


def _new_trial() -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )


def _utc(local: datetime | None) -> datetime | None:
    return local and local.astimezone(UTC).replace(tzinfo=None)
