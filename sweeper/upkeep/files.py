"""Checks of the files of a study and its registered versions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from sweeper.config.trial import Outcome
from sweeper.errors import ModelError
from sweeper.files.atomic import discard, new_folder
from sweeper.files.checksums import sha256_of, sums_of
from sweeper.files.temporary import leftovers, remove
from sweeper.models.facts import fingerprint
from sweeper.paths import TrialPaths
from sweeper.registry import AdapterVersion
from sweeper.registry.files import differences
from sweeper.store.trial_files import TrialPart, files_of, folder_of, wrong
from sweeper.upkeep.facts import Facts, Inconsistency

_ASIDE = "adapter-damaged"
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors")


def artifacts_are_whole(facts: Facts) -> Iterator[Inconsistency]:
    """Check that the files of every trial are as recorded, and that there are no others."""
    for number, trial in facts.trials.items():
        paths, recorded = facts.paths.trial(number), facts.artifacts.get(number, ())
        closed = trial.outcome is not None and not trial.outcome.is_open
        if not facts.alive and (bad := wrong(recorded, facts.name, paths, "frozen")):
            yield _damaged(facts, paths, "frozen", bad)
        if bad := wrong(recorded, facts.name, paths, "adapter"):
            yield _damaged(facts, paths, "adapter", bad)
        elif not recorded and paths.adapter.is_dir() and trial.outcome is Outcome.COMPLETE:
            yield from _unrecorded(facts, paths, trial.adapter_sha256)
        if facts.alive:
            continue
        if closed and paths.is_frozen and number not in facts.unfinished():
            yield _needless(
                paths.frozen, f"trial {number} has ended ({trial.outcome}), so nothing will continue from this"
            )
        if closed and paths.adapter.is_dir() and trial.outcome is not Outcome.COMPLETE:
            yield _needless(paths.adapter, f"trial {number} is {trial.outcome}, and only complete trials have adapters")


def _damaged(facts: Facts, paths: TrialPaths, part: TrialPart, bad: list[str]) -> Inconsistency:
    number, text = paths.number, f"trial {paths.number}: {'; '.join(bad)} (in {folder_of(paths, part)})"
    if part == "frozen":
        advice = "`--repair` removes its saved state; `sweeper resume` begins the trial again"
        mend = partial(_forget_frozen, facts, paths)
        return Inconsistency("stopped trial damaged", text, advice, mend, f"removed {paths.frozen}")
    recorded = {each.path.removeprefix("adapter/"): each.sha256 for each in facts.artifacts[number]}
    for version in _registered_from(facts, number):
        if version.files.items() <= recorded.items() and _holds(version.folder, recorded):
            advice = f"`--repair` copies it back from {version}, which was registered from it"
            mend = partial(_copy, version.folder, paths.adapter, recorded)
            return Inconsistency("adapter damaged", text, advice, mend, f"copied {version.folder} to {paths.adapter}")
    return _lost(facts, paths, text)


def _unrecorded(facts: Facts, paths: TrialPaths, sha256: str | None) -> Iterator[Inconsistency]:
    weights = next((paths.adapter / name for name in _WEIGHTS if (paths.adapter / name).is_file()), None)
    number = paths.number
    if sha256 is None:
        return
    if weights is not None and sha256_of(weights) == sha256:
        yield Inconsistency(
            "adapter not recorded",
            f"the adapter of trial {number} is intact, but its files are not in the database",
            "`--repair` records them",
            lambda: facts.database.artifacts.replace(facts.name, number, files_of(paths, "adapter")),
            f"recorded the files of trial {number}",
        )
        return
    text = f"trial {number}: the weights in {paths.adapter} are not those that the trial saved (SHA-256 {sha256[:12]})"
    yield _lost(facts, paths, text)


def _lost(facts: Facts, paths: TrialPaths, text: str) -> Inconsistency:
    advice = "restore it from a backup; `--repair` sets it aside, so the study can continue without it"
    there = paths.adapter.is_dir()
    done = (
        f"moved {paths.adapter} to {_ASIDE}" if there else f"forgot the adapter of trial {paths.number}, which is gone"
    )
    return Inconsistency("adapter damaged", text, advice, partial(_set_aside, facts, paths), done)


def _needless(folder: Path, why: str) -> Inconsistency:
    remedy, done = "`--repair` removes it", f"removed {folder}"
    return Inconsistency("needless files", f"{why}: {folder}", remedy, partial(discard, folder), done)


def specifications_are_there(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every adapter has its trial's specification."""
    for number in facts.trials:
        paths = facts.paths.trial(number)
        if paths.adapter.is_dir() and not paths.spec.is_file():
            yield Inconsistency(
                "specification gone",
                f"{paths.spec} is gone, so the adapter of trial {number} cannot be scored or exported",
                "restore it from a backup",
            )


def folders_are_known(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every trial folder is of a known trial."""
    known = facts.trials.keys() | (facts.stored or {}).keys()
    trials = facts.paths.trial(0).folder.parent
    for folder in sorted(trials.iterdir()) if trials.is_dir() else ():
        if re.fullmatch(r"\d+", folder.name) and int(folder.name) not in known:
            yield Inconsistency(
                "unknown trial",
                f"{folder} belongs to a trial that neither the database nor the search knows",
                "the database may be from an older backup: restore the newer one, or move the folder away; a new trial "
                "of that number will overwrite it",
            )


def data_are_the_same(facts: Facts) -> Iterator[Inconsistency]:
    """Check that the prepared rows are the study's original ones."""
    for split, sha256 in sorted(facts.study.data_sha256.items()):
        path = facts.paths.data / f"{split}.jsonl"
        if not path.is_file():
            text = f"{path} is gone"
        elif sha256_of(path) != sha256:
            text = f"{path} has changed since the study began (SHA-256 recorded as {sha256[:12]})"
        else:
            continue
        advice = "restore it from a backup; with other rows this would be another experiment, so it cannot be resumed"
        yield Inconsistency("data changed", text, advice)


def bases_are_there(facts: Facts) -> Iterator[Inconsistency]:
    """Check that the base models are where the study found them, and unchanged."""
    advice = "put it back there (`sweeper models fetch` for one that was fetched), or run the study under another name"
    try:
        found = json.loads(facts.paths.resolved.read_text(encoding="utf-8"))["models"]
        models = {name: (Path(model["folder"]), model["fingerprint"]) for name, model in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        state = "gone" if isinstance(error, FileNotFoundError) else f"damaged ({type(error).__name__})"
        remedy = "restore it from a backup; the study cannot be resumed"
        yield Inconsistency("resolution gone", f"{facts.paths.resolved} is {state}", remedy)
        return
    for name, (folder, known) in models.items():
        if not folder.is_dir():
            text = f"the base model {name} was found in {folder}, which is gone"
            yield Inconsistency("base model gone", text, advice)
            continue
        try:
            same = fingerprint(folder) == known
        except ModelError as error:
            yield Inconsistency("base model changed", f"the base model {name} cannot be read: {error}", advice)
            continue
        if not same:
            text = f"the base model {name} in {folder} has changed since the study began"
            yield Inconsistency("base model changed", text, advice)


def versions_are_whole(facts: Facts) -> Iterator[Inconsistency]:
    """Check that every version registered from the study is as it was registered."""
    for version in _registered_from(facts):
        bad = differences(version.folder, version.files)
        if not bad:
            continue
        text, source = f"{version}: {'; '.join(bad)}", facts.paths.trial(version.lineage.trial).adapter
        if _holds(source, version.files):
            advice = f"`--repair` copies it back from {source}, which still has the registered files"
            mend = partial(_copy, source, version.folder, version.files)
            yield Inconsistency("version damaged", text, advice, mend, f"copied {source} to {version.folder}")
        else:
            yield Inconsistency("version damaged", text, "restore it from a backup; do not use it")


def nothing_half_written(facts: Facts) -> Iterator[Inconsistency]:
    """Check that no ended process has left partially written files."""
    for path in leftovers(facts.paths.folder) if not facts.alive else ():
        text = f"{path} was left partially written by a process that has ended"
        yield Inconsistency("temporary file", text, "`--repair` removes it", partial(remove, path), f"removed {path}")


# ---- repairs


def _registered_from(facts: Facts, number: int | None = None) -> list[AdapterVersion]:
    return [
        version
        for version in facts.registry.all()
        if version.lineage.study == facts.name and number in (None, version.lineage.trial)
    ]


def _holds(folder: Path, files: Mapping[str, str]) -> bool:
    """Return whether a folder has these files unchanged, perhaps among others."""
    found = {name: of.sha256 for name, of in sums_of(folder).items()} if folder.is_dir() else {}
    return files.items() <= found.items()


def _copy(source: Path, target: Path, files: Mapping[str, str]) -> None:
    with new_folder(target) as folder:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def _forget_frozen(facts: Facts, paths: TrialPaths) -> None:
    facts.database.artifacts.forget(facts.name, paths.number)
    discard(paths.frozen)


def _set_aside(facts: Facts, paths: TrialPaths) -> None:
    facts.database.artifacts.forget(facts.name, paths.number)
    if paths.adapter.is_dir():
        shutil.rmtree(paths.adapter.with_name(_ASIDE), ignore_errors=True)
        paths.adapter.rename(paths.adapter.with_name(_ASIDE))
