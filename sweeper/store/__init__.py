"""The store: sweeper's memory in one database, beside Optuna's tables. The only folder that knows SQL."""

from sweeper.store.connection import connection_arguments, missing_driver
from sweeper.store.database import Database, bind
from sweeper.store.faults import explain
from sweeper.store.leases import SCORING
from sweeper.store.records import (
    Action,
    AdapterRecord,
    Artifact,
    Evaluation,
    EventRecord,
    Example,
    Feedback,
    MetricPoint,
    Order,
    OrderKind,
    OrderState,
    PruningDecision,
    ScoreRecord,
    Stage,
    StudyRecord,
    StudyState,
    TrialKind,
    TrialRecord,
    WorkerRecord,
)
from sweeper.store.rows import did_you_mean
from sweeper.store.schema import creation_lock
from sweeper.store.studies import read_config, stored_config

__all__ = [
    "SCORING",
    "Action",
    "AdapterRecord",
    "Artifact",
    "Database",
    "Evaluation",
    "EventRecord",
    "Example",
    "Feedback",
    "MetricPoint",
    "Order",
    "OrderKind",
    "OrderState",
    "PruningDecision",
    "ScoreRecord",
    "Stage",
    "StudyRecord",
    "StudyState",
    "TrialKind",
    "TrialRecord",
    "WorkerRecord",
    "bind",
    "connection_arguments",
    "creation_lock",
    "did_you_mean",
    "explain",
    "missing_driver",
    "read_config",
    "stored_config",
]
