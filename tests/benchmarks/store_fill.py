"""A study filled with finished or running trials, written straight into Optuna's tables."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from sweeper.search.space import distributions
from sweeper.search.storages import trial_rows as rows

_ATTRIBUTES: dict[str, Any] = {
    "kind": "sampled",
    "length": 1.0,
    "warmup_end_percent": 0.0,
    "epochs_trained": 1.0,
    "paused": False,
    "outcome": "complete",
}


def fill(
    storage: RDBStorage,
    study_id: int,
    space: Any,
    trials: int,
    reports: int,
    *,
    state: TrialState = TrialState.COMPLETE,
    first: int = 0,
) -> None:
    """Add ``trials`` trials with ``reports`` reports each to a study, numbered from ``first``."""
    rng, now = random.Random(first), datetime.now(UTC).replace(tzinfo=None)
    found: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (rows.TRIALS, rows.PARAMS, rows.VALUES, rows.CURVES, rows.USER_ATTRS)
    }
    with storage.engine.begin() as connection:
        base = connection.exec_driver_sql("SELECT coalesce(max(trial_id), 0) + 1 FROM trials").scalar()
        for place in range(trials):
            key, ended = base + place, None if state == TrialState.RUNNING else now
            of = {"trial_id": key}
            head = of | {"number": first + place, "study_id": study_id, "state": state}
            found[rows.TRIALS].append(head | {"datetime_start": now, "datetime_complete": ended})
            for name, distribution in distributions(space).items():
                low, high = getattr(distribution, "low", 0), getattr(distribution, "high", 1)
                value = rng.uniform(low, high) if isinstance(low, float) else rng.randint(low, high)
                told = {"param_name": name, "param_value": value}
                found[rows.PARAMS].append(of | told | {"distribution_json": distribution_to_json(distribution)})
            curve = [(100 * at // reports, rng.random()) for at in range(1, reports + 1)]
            found[rows.CURVES] += rows.curve(key, curve)
            if state == TrialState.COMPLETE:
                found[rows.VALUES].append(of | {"objective": 0, "value": curve[-1][1], "value_type": "FINITE"})
            attributes = _ATTRIBUTES | {"ordinal": first + place, "seed": first + place}
            found[rows.USER_ATTRS] += [of | {"key": k, "value_json": json.dumps(v)} for k, v in attributes.items()]
        for table, several in found.items():
            if several:
                connection.execute(table.insert(), several)
        if connection.engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))")
