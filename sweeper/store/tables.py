"""The tables, all prefixed ``sweeper_``: they share one database with Optuna's.

A change here needs a migration in ``migrations/versions``; a test compares the two.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sweeper.config.trial import Outcome
from sweeper.store.records import OrderKind, OrderState, Stage, StudyState, TrialKind
from sweeper.store.types import FreeText, Json, Number, OptionalNumber, UtcDateTime, Word

PREFIX = "sweeper_"
"""Begins the name of every table of sweeper's, including that of the migrations."""

REASON_LIMIT = 2_000
MESSAGE_LIMIT = 2_000
EVENT_DATA_LIMIT = 16_384
EXAMPLE_LIMIT = 20_000
NOTE_LIMIT = 4_000
ACTOR_LIMIT = 200
ORDER_DATA_LIMIT = 16_384


def _word(kind: type[StrEnum]) -> Enum:
    """Return the type of a column of words: text in every database, the enumeration in Python."""
    return Enum(kind, native_enum=False, length=20, values_callable=lambda members: [m.value for m in members])


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - the name and form are SQLAlchemy's
        datetime: UtcDateTime(),
        dict[str, Any]: Json(),
        float: OptionalNumber(),
        int: BigInteger(),
        Outcome: _word(Outcome),
        StudyState: _word(StudyState),
        TrialKind: _word(TrialKind),
        Stage: _word(Stage),
        OrderKind: _word(OrderKind),
        OrderState: _word(OrderState),
    }


class InfoRow(Base):
    """Facts about the database itself, such as the sweeper version that last migrated it."""

    __tablename__ = f"{PREFIX}info"

    key: Mapped[str] = mapped_column(Word(100), primary_key=True)
    value: Mapped[str] = mapped_column(FreeText(1_000))


class StudyRow(Base):
    """One study file that was run."""

    __tablename__ = f"{PREFIX}studies"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(Word(100), unique=True)
    state: Mapped[StudyState]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    file_name: Mapped[str] = mapped_column(FreeText(1_000))
    file_text: Mapped[str] = mapped_column(FreeText())
    config: Mapped[dict[str, Any]] = mapped_column("config_json")
    space: Mapped[dict[str, Any]] = mapped_column("space_json")
    seed: Mapped[int]
    sweeper_version: Mapped[str] = mapped_column(Word(100))
    packages: Mapped[dict[str, Any]] = mapped_column("packages_json")
    data_sha256: Mapped[dict[str, Any]] = mapped_column("data_sha256_json")
    base_model: Mapped[str] = mapped_column(FreeText(1_000))
    base_model_fingerprint: Mapped[str] = mapped_column(Word(200))
    tags: Mapped[list[str]] = mapped_column("tags_json", Json(), server_default="[]", default=list)
    archived_at: Mapped[datetime | None]
    changes: Mapped[int] = mapped_column(server_default="0", default=0)


class OfStudy:
    """The columns of a row that belongs to a study, or to its trial ``number``."""

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id))
    number: Mapped[int | None]


class TrialRow(Base):
    """One trial: its parameters and, once ended, its ``TrialResult``."""

    __tablename__ = f"{PREFIX}trials"
    __table_args__ = (UniqueConstraint("study_id", "number"), Index(None, "study_id", "changed"))

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id))
    number: Mapped[int]
    kind: Mapped[TrialKind]
    confirms: Mapped[int | None]
    restarts: Mapped[int | None]
    clones: Mapped[int | None]
    initial: Mapped[int | None]
    seed: Mapped[int]
    parameters: Mapped[dict[str, Any]] = mapped_column("parameters_json")
    outcome: Mapped[Outcome | None]
    reason: Mapped[str | None] = mapped_column(FreeText(REASON_LIMIT))
    value: Mapped[float | None]
    metrics: Mapped[dict[str, Any]] = mapped_column("metrics_json", default=dict)
    best_step: Mapped[int | None]
    steps: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int] = mapped_column(default=0)
    epochs_trained: Mapped[float] = mapped_column(default=0.0)
    device: Mapped[str] = mapped_column(Word(100))
    dtype: Mapped[str | None] = mapped_column(Word(100))
    attention: Mapped[str | None] = mapped_column(Word(100))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    train_seconds: Mapped[float] = mapped_column(default=0.0)
    latency_ms: Mapped[float | None]
    tokens: Mapped[int] = mapped_column(default=0)
    peak_memory_bytes: Mapped[int | None]
    micro_batch: Mapped[int | None]
    adapter_bytes: Mapped[int | None]
    adapter_sha256: Mapped[str | None] = mapped_column(Word(64))
    total_parameters: Mapped[int | None]
    base_model: Mapped[str | None] = mapped_column(FreeText(1_000))
    base_model_fingerprint: Mapped[str | None] = mapped_column(Word(200))
    changed: Mapped[int] = mapped_column(server_default="0", default=0)
    decisions_recorded: Mapped[bool | None]


class MetricRow(Base):
    """One metric at one step. No row id: the primary key is the table, which halves its size."""

    __tablename__ = f"{PREFIX}metrics"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    trial_id: Mapped[int] = mapped_column(Integer, ForeignKey(TrialRow.id), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Word(100), primary_key=True)
    value: Mapped[float] = mapped_column(Number, nullable=True)
    seconds: Mapped[float | None]


class DecisionRow(Base):
    """A pruner's decision on a trial at a per cent of its training."""

    __tablename__ = f"{PREFIX}decisions"

    trial_id: Mapped[int] = mapped_column(Integer, ForeignKey(TrialRow.id), primary_key=True)
    progress: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    pruner: Mapped[str] = mapped_column(Word(100))
    rung: Mapped[int | None]
    value: Mapped[float] = mapped_column(Number, nullable=True)
    rank: Mapped[int | None]
    peers: Mapped[int]
    continuing: Mapped[int | None]
    threshold: Mapped[float | None]
    pruned: Mapped[bool]
    reason: Mapped[str] = mapped_column(FreeText(MESSAGE_LIMIT))
    compared: Mapped[list[Any]] = mapped_column("compared_json", Json())


class EvaluationRow(OfStudy, Base):
    """One score of a base model (``number`` absent) or of a trial on a split; ``base`` tells several bases apart."""

    __tablename__ = f"{PREFIX}evaluations"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], [TrialRow.study_id, TrialRow.number]),
        UniqueConstraint("study_id", "number", "split", "metric"),
    )

    split: Mapped[str] = mapped_column(Word(100))
    metric: Mapped[str] = mapped_column(Word(100))
    score: Mapped[float] = mapped_column(Number, nullable=True)
    low: Mapped[float | None]
    high: Mapped[float | None]
    diff_to_base: Mapped[float | None]
    diff_low: Mapped[float | None]
    diff_high: Mapped[float | None]
    base: Mapped[str] = mapped_column(FreeText(1_000), server_default="")


class ExampleRow(OfStudy, Base):
    """One scored example of an evaluation."""

    __tablename__ = f"{PREFIX}examples"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], [TrialRow.study_id, TrialRow.number]),
        UniqueConstraint("study_id", "number", "split", "index"),
    )

    split: Mapped[str] = mapped_column(Word(100))
    index: Mapped[int]
    prompt: Mapped[str] = mapped_column(FreeText(EXAMPLE_LIMIT))
    reference: Mapped[str] = mapped_column(FreeText(EXAMPLE_LIMIT))
    generated: Mapped[str] = mapped_column(FreeText(EXAMPLE_LIMIT))
    scores: Mapped[dict[str, Any]] = mapped_column("scores_json")
    base: Mapped[str] = mapped_column(FreeText(1_000), server_default="")
    statistics: Mapped[dict[str, Any] | None] = mapped_column("statistics_json")


class AdapterRow(Base):
    """One registered adapter version. Deleted ones keep their row, so that a version number never comes back."""

    __tablename__ = f"{PREFIX}adapters"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], [TrialRow.study_id, TrialRow.number]),
        UniqueConstraint("name", "version"),
        Index(
            f"uq_{PREFIX}adapters_production",
            "name",
            unique=True,
            sqlite_where=text("stage = 'production'"),
            postgresql_where=text("stage = 'production'"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(Word(100))
    version: Mapped[int]
    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id))
    number: Mapped[int]
    stage: Mapped[Stage]
    path: Mapped[str] = mapped_column(Word(1_000))
    sha256: Mapped[str] = mapped_column(Word(64))
    bytes: Mapped[int]
    files: Mapped[dict[str, Any]] = mapped_column("files_json")
    scores: Mapped[dict[str, Any]] = mapped_column("scores_json")
    lineage: Mapped[dict[str, Any]] = mapped_column("lineage_json")
    created_at: Mapped[datetime]
    tags: Mapped[list[str]] = mapped_column("tags_json", Json(), server_default="[]", default=list)
    note: Mapped[str] = mapped_column(FreeText(NOTE_LIMIT), server_default="", default="")


class AliasRow(Base):
    """A name for a version of an adapter, such as ``champion``; it moves from version to version."""

    __tablename__ = f"{PREFIX}aliases"
    __table_args__ = (ForeignKeyConstraint(["name", "version"], [AdapterRow.name, AdapterRow.version]),)

    name: Mapped[str] = mapped_column(Word(100), primary_key=True)
    alias: Mapped[str] = mapped_column(Word(100), primary_key=True)
    version: Mapped[int]


class EventRow(OfStudy, Base):
    """An event."""

    __tablename__ = f"{PREFIX}events"
    __table_args__ = (Index(None, "study_id", "id"),)

    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(FreeText(100))
    message: Mapped[str] = mapped_column(FreeText(MESSAGE_LIMIT))
    data: Mapped[dict[str, Any] | None] = mapped_column("data_json", Json(EVENT_DATA_LIMIT))


class ActionRow(Base):
    """An action of a person: who, when, on what. Rows are only ever added."""

    __tablename__ = f"{PREFIX}actions"
    __table_args__ = (Index(None, "adapter", "id"), Index(None, "study", "id"))

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(FreeText(ACTOR_LIMIT))
    kind: Mapped[str] = mapped_column(Word(50))
    study: Mapped[str | None] = mapped_column(Word(100))
    number: Mapped[int | None]
    adapter: Mapped[str | None] = mapped_column(Word(100))
    version: Mapped[int | None]
    forced: Mapped[bool] = mapped_column(default=False)
    message: Mapped[str] = mapped_column(FreeText(MESSAGE_LIMIT))
    data: Mapped[dict[str, Any] | None] = mapped_column("data_json", Json(EVENT_DATA_LIMIT))


class OrderRow(OfStudy, Base):
    """An order to a study's runner, and its answer."""

    __tablename__ = f"{PREFIX}orders"
    __table_args__ = (Index(None, "study_id", "state"),)

    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(FreeText(ACTOR_LIMIT))
    kind: Mapped[OrderKind]
    data: Mapped[dict[str, Any]] = mapped_column("data_json", Json(ORDER_DATA_LIMIT))
    state: Mapped[OrderState]
    answered_at: Mapped[datetime | None]
    answer: Mapped[str | None] = mapped_column(FreeText(MESSAGE_LIMIT))


class FeedbackRow(Base):
    """Feedback on an answer of a version, or of a bare base model."""

    __tablename__ = f"{PREFIX}feedback"
    __table_args__ = (Index(None, "adapter", "version"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(FreeText(ACTOR_LIMIT))
    adapter: Mapped[str | None] = mapped_column(Word(100))
    version: Mapped[int | None]
    base_model: Mapped[str] = mapped_column(FreeText(1_000))
    prompt: Mapped[str] = mapped_column(FreeText(EXAMPLE_LIMIT))
    answer: Mapped[str] = mapped_column(FreeText(EXAMPLE_LIMIT))
    good: Mapped[bool | None]
    correction: Mapped[str | None] = mapped_column(FreeText(EXAMPLE_LIMIT))
    settings: Mapped[dict[str, Any]] = mapped_column("settings_json")


class WorkerRow(Base):
    """A process that runs trials of a study. Its beat grows while it lives; its row is deleted when it leaves."""

    __tablename__ = f"{PREFIX}workers"
    __table_args__ = (Index(None, "study_id"),)

    token: Mapped[str] = mapped_column(Word(32), primary_key=True)
    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id))
    host: Mapped[str] = mapped_column(FreeText(1_000))
    pid: Mapped[int]
    process_started: Mapped[float]
    device: Mapped[str] = mapped_column(FreeText(100))
    beat: Mapped[int] = mapped_column(default=0)
    joined_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class LeaseRow(Base):
    """A trial that a worker holds; no other may start, report or end it."""

    __tablename__ = f"{PREFIX}leases"
    __table_args__ = (Index(None, "worker"),)

    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(Word(32))
    retries: Mapped[int] = mapped_column(default=0)
    taken_at: Mapped[datetime]


class ArtifactRow(Base):
    """A file of a trial, as it was when it was written; ``path`` is relative to the trial's folder."""

    __tablename__ = f"{PREFIX}artifacts"
    __table_args__ = (UniqueConstraint("study_id", "number", "path"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(Integer, ForeignKey(StudyRow.id))
    number: Mapped[int]
    path: Mapped[str] = mapped_column(Word(1_000))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(Word(64))
    written_at: Mapped[datetime]
