"""What must hold after a kill, and once the study has ended."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sweeper.config.trial import Outcome, TrialResult
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.search.storages.open import open_storage
from sweeper.store import Database, StudyState, TrialRecord

Finished = Mapping[int, tuple[str, float | None]]
"""How each trial that has ended for good ended, and its value, by its number."""


@dataclass(frozen=True)
class Breach:
    """Something that does not hold.

    Attributes:
        kind: ``lost``, ``duplicate``, ``zombie``, ``leftover``, ``count``, ``disagreement`` or ``different``.
        text: What and where.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def study_exists(home: Home, name: str) -> bool:
    """Tell whether the home knows the study, so that it is to be resumed and not run."""
    if not Database.exists(home.database):
        return False
    with Database.open(home.database, create=True) as database:
        return database.studies.find(name) is not None


def finished(home: Home, name: str) -> Finished:
    """Return what the database acknowledges as ended for good."""
    if not study_exists(home, name):
        return {}
    with Database.open(home.database, create=False) as database:
        return {trial.number: (str(trial.outcome), trial.value) for trial in database.trials.all(name) if _ended(trial)}


def _ended(trial: TrialRecord) -> bool:
    return trial.outcome is not None and not trial.outcome.is_open


def lost(before: Finished, after: Finished) -> Iterator[Breach]:
    """Say which trials had ended and have not any more, or ended otherwise."""
    for number, how in before.items():
        if after.get(number) != how:
            yield Breach("lost", f"trial {number} had ended as {how}, and now is {after.get(number)}")


def at_end(home: Home, name: str, trials: int) -> Iterator[Breach]:
    """Say what does not hold of a study that has ended with so many trials."""
    with Database.open(home.database, create=False) as database:
        state = database.studies.get(name).state
        records = database.trials.all(name)
        versions = [(v.version, v.lineage.trial) for v in Registry(home, database).all(name)]
    if state is not StudyState.FINISHED:
        yield Breach("zombie", f"the study is {state}")
    counted = [trial for trial in records if _ended(trial)]
    if len(counted) != trials:
        yield Breach("count", f"{len(counted)} trials have ended, not {trials}")
    yield from _duplicates(records)
    yield from _agreement(home, name, records)
    yield from _adapters(home, name, records, versions)
    yield from leftovers(home.folder)


def _duplicates(records: tuple[TrialRecord, ...]) -> Iterator[Breach]:
    """A seed belongs to one trial of the study; only what was interrupted may share it with its successor."""
    seen: dict[int, int] = {}
    for trial in records:
        if not _ended(trial):
            if trial.outcome is not Outcome.INTERRUPTED:
                yield Breach("zombie", f"trial {trial.number} is {trial.outcome or 'running'} in the database")
            continue
        if trial.seed in seen:
            yield Breach("duplicate", f"trials {seen[trial.seed]} and {trial.number} are the same")
        seen[trial.seed] = trial.number
    restarted = [trial.restarts for trial in records if trial.restarts is not None]
    for number in {number for number in restarted if restarted.count(number) > 1}:
        yield Breach("duplicate", f"trial {number} was begun again {restarted.count(number)} times")
    for trial in records:
        if trial.outcome is Outcome.INTERRUPTED and trial.seed not in seen:
            yield Breach("zombie", f"trial {trial.number} was interrupted and never went on")


def _agreement(home: Home, name: str, records: tuple[TrialRecord, ...]) -> Iterator[Breach]:
    """Hold the database's rows, Optuna's trials and the results on disk against each other."""
    import optuna

    told = optuna.load_study(study_name=name, storage=open_storage(home.database)).trials
    known = {trial.number: trial for trial in records}
    for trial in told:
        if not trial.state.is_finished():
            yield Breach("zombie", f"trial {trial.number} is {trial.state.name} to Optuna")
        record = known.pop(trial.number, None)
        if record is None:
            if trial.state.name != "FAIL":  # one whose process died before it began
                yield Breach("disagreement", f"trial {trial.number} is Optuna's alone: {trial.state.name}")
            continue
        complete = record.outcome is Outcome.COMPLETE
        if complete != (trial.state.name == "COMPLETE") or (complete and trial.value != record.value):
            text = f"{record.outcome} {record.value} here, {trial.state.name} {trial.values} to Optuna"
            yield Breach("disagreement", f"trial {trial.number} is {text}")
    for number in known:
        yield Breach("disagreement", f"trial {number} is unknown to Optuna")
    for trial in filter(_ended, records):
        path = home.study(name).trial(trial.number).result
        try:
            result = TrialResult.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield Breach("disagreement", f"the result of trial {trial.number}: {error}")
            continue
        if (result.outcome, result.value) != (trial.outcome, trial.value):
            yield Breach("disagreement", f"trial {trial.number}: {result.outcome} {result.value} on disk")


def _adapters(
    home: Home, name: str, records: tuple[TrialRecord, ...], versions: list[tuple[int, int]]
) -> Iterator[Breach]:
    by_number = {trial.number: trial for trial in records}
    complete = [(home.study(name).trial(t.number).adapter, t) for t in records if t.outcome is Outcome.COMPLETE]
    folders = [(folder, trial) for folder, trial in complete if folder.exists()]  # the keep policy removes others whole
    folders += [(home.adapter(name, version), by_number[number]) for version, number in versions]
    for folder, trial in folders:
        weights = folder / "adapter_model.safetensors"
        if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != trial.adapter_sha256:
            yield Breach("disagreement", f"{weights} is not what trial {trial.number} was trained to")
        try:
            json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield Breach("disagreement", f"{folder / 'adapter_config.json'}: {error}")
    if len(versions) > 1:
        yield Breach("duplicate", f"{len(versions)} versions are registered")


def leftovers(folder: Path) -> Iterator[Breach]:
    """Say which temporary files lie about."""
    for path in folder.rglob("*"):
        if path.name.endswith((".tmp", "-journal")):
            yield Breach("leftover", str(path.relative_to(folder)))


def processes(pids: set[int], home: Path, grace_s: float = 3.0) -> Iterator[Breach]:
    """Say which processes are still there though the one that ran the study is gone, and end them."""
    end = time.monotonic() + grace_s
    while (left := list(_processes(pids, home))) and time.monotonic() < end:
        time.sleep(0.05)
    for process in left:
        yield Breach("leftover", f"process {process.pid}: {' '.join(process.cmdline())[:200]}")
        process.kill()


def _processes(pids: set[int], home: Path) -> Iterator[psutil.Process]:
    """Find what belongs to the sessions of ``pids``, or was started with the home in its environment."""
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            ours = os.getsid(process.pid) in pids
            if ours or process.environ().get("SWEEPER_HOME") == str(home):
                yield process
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


def ending(home: Home, name: str) -> dict[str, Any]:
    """Return all that an undisturbed run with the same seed has to end with as well, numbers of trials left out."""
    with Database.open(home.database, create=False) as database:
        trials = [trial for trial in database.trials.all(name) if _ended(trial)]
        losses = {
            trial.number: [point.value for point in database.metrics.get(name, number=trial.number, name="loss")]
            for trial in trials
        }
        versions = Registry(home, database).all(name)
    by_number = {trial.number: trial for trial in trials}
    return {
        "trials": [
            (t.kind, t.seed, t.parameters, t.outcome, t.value, t.adapter_sha256, losses[t.number]) for t in trials
        ],
        "registered": [by_number[version.lineage.trial].seed for version in versions],
    }


def different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Breach]:
    """Say where a study ended otherwise than the undisturbed one."""
    for found_trial, expected_trial in zip(found["trials"], expected["trials"], strict=False):
        if found_trial != expected_trial:
            yield Breach("different", f"{found_trial} where the undisturbed study has {expected_trial}")
            return
    if found["registered"] != expected["registered"]:
        yield Breach("different", f"registered {found['registered']}, undisturbed {expected['registered']}")
