"""The files of trials: recorded in the database when a trial ends, checked against it when they are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from sweeper.config.orders import obstacle_to_weights
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.errors import ArtifactError, StudyStateError
from sweeper.files.checksums import Sum, broken_seal, differences, owner, sums_of
from sweeper.paths import TrialPaths
from sweeper.store import Artifact, Database, stored_config

TrialPart = Literal["adapter", "frozen"]
"""The adapter of a complete trial; the whole state of one that was stopped or paused."""

_WEIGHTS = ("adapter_model.safetensors", "model.safetensors")


def of_result(paths: TrialPaths, result: TrialResult) -> tuple[Artifact, ...]:
    """Return the files of a trial with this result, to be stored.

    The checksum of the weights is the one from when the trial saved them, whatever happened to them since.
    """
    if result.outcome.is_open:
        return files_of(paths, "frozen")
    if result.outcome is not Outcome.COMPLETE:
        return ()
    return tuple(
        Artifact(each.number, each.path, each.bytes, result.adapter_sha256)
        if result.adapter_sha256 and Path(each.path).name in _WEIGHTS
        else each
        for each in files_of(paths, "adapter")
    )


def files_of(paths: TrialPaths, part: TrialPart) -> tuple[Artifact, ...]:
    """Return the files of a part of a trial as they are on disk now; empty if it has no such part."""
    sums = sums_of(folder_of(paths, part))
    return tuple(Artifact(paths.number, f"{part}/{name}", of.bytes or 0, of.sha256) for name, of in sums.items())


def folder_of(paths: TrialPaths, part: TrialPart) -> Path:
    """Return the folder of a part of a trial."""
    return paths.adapter if part == "adapter" else paths.frozen


def damage(database: Database, study: str, paths: TrialPaths, part: TrialPart) -> list[str]:
    """Return what is wrong with the files of a trial, one line each; an empty list if nothing is.

    Files that the database does not know are accepted: an earlier version of sweeper wrote them. A state that was
    frozen while the trial ran has its own checksums.
    """
    return wrong(database.artifacts.all(study, paths.number), study, paths, part)


def wrong(recorded: Iterable[Artifact], study: str, paths: TrialPaths, part: TrialPart) -> list[str]:
    """Return what ``damage`` does, given what was ``recorded`` of the trial."""
    folder = folder_of(paths, part)
    prefix = f"{part}/"
    expected = {
        each.path.removeprefix(prefix): Sum(each.sha256, each.bytes)
        for each in recorded
        if each.path.startswith(prefix)
    }
    if expected:
        return differences(folder, expected)
    return broken_seal(folder, owner(study, paths.number)) if part == "frozen" else []


def require_whole(database: Database, study: str, paths: TrialPaths, part: TrialPart) -> None:
    """Make sure that the files of a trial are as they were written.

    Raises:
        ArtifactError: Naming each that is not.
    """
    found = damage(database, study, paths, part)
    if found:
        raise ArtifactError(
            f"the {part} of trial {paths.number} of study {study!r} in {folder_of(paths, part)} is not as it was "
            f"written: {'; '.join(found)}; restore it from a backup, or let `sweeper doctor {study} --repair` set it "
            "aside"
        )


def require_weights(database: Database, study: str, trial: TrialPaths, changes: Mapping[str, Any]) -> None:
    """Refuse to start a trial from the saved weights of another of the study if that cannot be exact.

    ``changes`` are the parameters that differ, with their new values; see ``config.orders.differing``.

    Raises:
        StudyStateError: If it cannot.
        ArtifactError: If the weights are not as the trial wrote them.
    """
    number = trial.number
    if not trial.spec.is_file():
        raise StudyStateError(f"trial {number} has no specification in {trial.folder}, so its weights are unknown")
    spec = TrialSpec.model_validate_json(trial.spec.read_text(encoding="utf-8"))
    obstacle = obstacle_to_weights(spec.adapter, changes)
    if obstacle is not None:
        raise StudyStateError(f"trial {number} cannot be continued: {obstacle}; clone it without its weights")
    recorded = database.artifacts.all(study, number)
    if not recorded and not (trial.adapter / "adapter_model.safetensors").is_file():
        raise StudyStateError(_no_weights(database, study, number))
    require_whole(database, study, trial, "adapter")


def _no_weights(database: Database, study: str, number: int) -> str:
    """Return why a trial has no saved weights, and what to do."""
    if database.trials.get(study, number).adapter_bytes is None:
        return f"trial {number} saved no adapter; only complete trials do: clone it without its weights"
    keep = stored_config(database.studies.get(study)).keep
    return (
        f"the adapter of trial {number} was removed by the study's keep policy ({keep}); clone the trial without its "
        "weights, or name a trial that still has them"
    )
