"""Garbage collection: finding and removing the files of a home that nothing needs any longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeper.config.pipeline import STARTED_FROM
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.executors.lifecycle.retention import judge
from sweeper.files.atomic import discard, size_of
from sweeper.files.temporary import LONG_SETTLED_S, SETTLED_S, is_settled, leftovers, remove
from sweeper.models.cache import OnStage
from sweeper.paths import Home, TrialPaths
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.open import open_storage
from sweeper.store import Database, StudyRecord, StudyState, TrialRecord, stored_config
from sweeper.upkeep.facts import runs, search_of


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nothing needs.

    Attributes:
        kind: ``temporary``, ``frozen``, ``adapter``, ``start`` or ``study``.
        why: Why it is not needed.
        number: Its trial, if any.
    """

    kind: str
    path: Path
    bytes: int
    why: str
    study: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class Swept:
    """What was found (and removed, unless it was a dry run), and what was left alone and why."""

    leftovers: tuple[Leftover, ...]
    left_alone: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of all of it."""
        return sum(each.bytes for each in self.leftovers)


def sweep(home: Home, database: Database, *, study: str | None = None, dry_run: bool, on_progress: OnStage) -> Swept:
    """Find the leftovers of a home, or of one of its studies, and remove them unless it is a ``dry_run``.

    Running studies are left alone: their runner applies their keep policy itself.

    Raises:
        StudyStateError: If there is no such study.
    """
    studies = (database.studies.get(study),) if study is not None else database.studies.all()
    storage, found = open_storage(home.database), list[Leftover]()
    alone: list[str] = []
    for place, record in enumerate(studies):
        on_progress("checking studies", place / len(studies))
        with database.study_lock(record.name):
            if runs(database, record.name):
                alone.append(f"study {record.name} is running, and applies its keep policy itself")
                continue
            try:
                of_study = list(_of_study(home, database, record, storage))
            except StudyStateError as error:
                alone.append(str(error))
                continue
            found += of_study
            if not dry_run:
                _remove(database, of_study)
    if study is None:
        of_home = list(_of_home(home, database, studies))
        found += of_home
        if not dry_run:
            _remove(database, of_home)
    return Swept(tuple(found), tuple(alone))


def _remove(database: Database, leftovers: list[Leftover]) -> None:
    for each in leftovers:
        if each.kind == "adapter" and each.study is not None and each.number is not None:
            database.artifacts.forget(each.study, each.number)  # first: a crash leaves an unused folder
        remove(each.path) if each.kind == "temporary" else discard(each.path)


def _of_study(home: Home, database: Database, study: StudyRecord, storage: AtomicStorage) -> Iterator[Leftover]:
    """Yield the leftovers in the folder of a study that no process runs."""
    paths, name = home.study(study.name), study.name
    for path in leftovers(paths.folder):
        yield Leftover("temporary", path, size_of(path), "left partially written by a process that has ended", name)
    search, trials = search_of(study, storage), {trial.number: trial for trial in database.trials.all(name)}
    unfinished = search.unfinished()
    on_disk = [paths.trial(number) for number in trials if paths.trial(number).folder.is_dir()]
    for trial in on_disk:
        if trial.is_frozen and trial.number not in unfinished:
            yield _part("frozen", trial, trial.frozen, name, _ended(trials[trial.number]))
    adapters = {trial.number: size_of(trial.adapter) for trial in on_disk if trial.adapter.is_dir()}
    complete = {number: size for number, size in adapters.items() if trials[number].outcome is Outcome.COMPLETE}
    for number in adapters.keys() - complete.keys() - unfinished:
        yield _part("adapter", paths.trial(number), paths.trial(number).adapter, name, _ended(trials[number]))
    frozen_bytes = sum(size_of(trial.frozen) for trial in on_disk if trial.is_frozen and trial.number in unfinished)
    ended = study.state is StudyState.FINISHED
    surplus, _ = judge(database, search, stored_config(study), complete, frozen_bytes, ended=ended)
    for each in surplus:
        yield _part("adapter", paths.trial(each.number), paths.trial(each.number).adapter, name, each.why)


def _part(kind: str, trial: TrialPaths, folder: Path, study: str, why: str) -> Leftover:
    return Leftover(kind, folder, size_of(folder), f"trial {trial.number}: {why}", study, trial.number)


def _ended(trial: TrialRecord) -> str:
    return f"it has ended ({trial.outcome or 'begun again under another number'}), so nothing will continue from this"


def _of_home(home: Home, database: Database, studies: tuple[StudyRecord, ...]) -> Iterator[Leftover]:
    """Yield the leftovers outside the folders of known studies."""
    known = {home.study(study.name).folder for study in studies}
    for folder in _folders(home.folder / "studies"):
        unknown = folder not in known and not home.study(folder.name).pipeline.is_file()
        if unknown and is_settled(folder, SETTLED_S):
            yield Leftover("study", folder, size_of(folder), f"the database knows no study {folder.name}")
    elsewhere = [path for path in sorted(home.folder.iterdir()) if path.name != "studies"]
    for path in elsewhere:
        for left in leftovers(path) if path.is_dir() else ():
            yield Leftover("temporary", left, size_of(left), "left partially written by a process that has ended")
    yield from _starts(home, studies)


def _starts(home: Home, studies: tuple[StudyRecord, ...]) -> Iterator[Leftover]:
    """Yield the merged models that no study starts from; all are kept if a study's settings cannot be read."""
    try:
        used = {model.name for study in studies for model in stored_config(study).models.values()}
    except StudyStateError:
        return
    for name in _folders(home.folder / "starts"):
        for folder in _folders(name):
            reference = f"{STARTED_FROM}{name.name}@{folder.name.removeprefix('v')}"
            if reference not in used and not folder.name.startswith(".") and is_settled(folder, LONG_SETTLED_S):
                yield Leftover("start", folder, size_of(folder), f"no study starts from {reference}")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
