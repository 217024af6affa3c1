"""Backups of a whole home while studies run in it: the database at one moment, and the files it refers to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeper.config.pipeline import STARTED_FROM
from sweeper.config.trial import Outcome, TrialResult
from sweeper.errors import BackupError, StudyStateError
from sweeper.files.atomic import new_folder, write_json
from sweeper.files.checksums import SEAL, Sum, broken_seal, copy_file, owner
from sweeper.models.cache import OnStage
from sweeper.paths import Home, TrialPaths
from sweeper.store import Artifact, Database, StudyRecord, TrialRecord, stored_config
from sweeper.store.snapshot import snapshot
from sweeper.store.trial_files import TrialPart, folder_of


@dataclass(frozen=True)
class BackedUp:
    """A backup.

    Attributes:
        folder: Where it is; a home itself, unless there is a ``dump``.
        bytes: Size of its files, without the database.
        left_out: What could not be copied because it is damaged or gone, one line each.
        dump: The file for `pg_restore`, if the database is on a server.
    """

    folder: Path
    bytes: int
    files: int
    left_out: tuple[str, ...]
    dump: Path | None


def back_up(home: Home, destination: Path, *, on_progress: OnStage) -> BackedUp:
    """Copy a home, all or nothing.

    The database is copied first, at one moment. Later changes of files show in their checksums: an adapter that the
    keep policy has removed is forgotten in the copy, too, and a trial that continued begins again there. The accounts
    of the dashboard, its exports, and base models outside the home are not copied.

    Raises:
        BackupError: If the destination exists, space is short, or the database cannot be copied; nothing is left.
        DatabaseError: If there is no database.
    """
    destination = destination.absolute()
    with Database.open(home.database, create=False) as live, _staged(home, destination) as folder:
        on_progress("copying the database", None)
        at = datetime.now(UTC)
        file = snapshot(home.database, folder)
        is_home = isinstance(home.database, Path)
        with Database.open(file, create=False) if is_home else nullcontext(live) as copy:
            backup = _Backup(home, folder, destination, live, copy, at, on_progress, is_home)
            backup.run()
    copier = backup.copier
    dump = None if is_home else destination / file.name
    return BackedUp(destination, copier.bytes, copier.files, tuple(backup.left_out), dump)


@dataclass
class _Backup:
    """The copying of the files that a database refers to."""

    home: Home
    folder: Path
    destination: Path
    live: Database
    copy: Database
    at: datetime
    on_progress: OnStage
    may_change: bool
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._total = self._done = 0
        self.copier = Copier(self.home, self.folder, self.destination, self._advance)

    def run(self) -> None:
        studies = self.copy.studies.all()
        self._measure(studies)
        for study in studies:
            self._study(study)
        for version in self.copy.adapters.all():
            sums = {name: Sum(sha256) for name, sha256 in version.files.items()}
            self._note(self.copier.files_of(self.home.adapter(version.name, version.version), sums))
        for name, number in sorted(_starts(studies)):
            if (start := self.home.start(name, number)).is_dir():
                self._note(self.copier.folder(start))
        for pipeline in sorted((self.home.folder / "studies").glob("*/pipeline.json")):
            self._note(self.copier.moved_json(pipeline))

    def _measure(self, studies: tuple[StudyRecord, ...]) -> None:
        """Sum up the sizes of the files, and refuse if there is not enough space."""
        recorded = sum(each.bytes for study in studies for each in self.copy.artifacts.all(study.name))
        registered = sum(version.bytes for version in self.copy.adapters.all())
        self._total = max(1, recorded + registered)
        free = shutil.disk_usage(self.folder).free
        if free < self._total:
            raise BackupError(
                f"{self.destination.parent} has {free:,} bytes free, and the files to copy take {self._total:,}: name "
                "a folder on another disk, or free some space (`sweeper gc --dry-run` shows what can go)"
            )

    def _advance(self, size: int) -> None:
        self._done += size
        self.on_progress("copying the files", min(1.0, self._done / self._total))

    def _note(self, wrong: list[str] | str | None) -> None:
        self.left_out += [wrong] if isinstance(wrong, str) else wrong or []

    def _study(self, study: StudyRecord) -> None:
        paths = self.home.study(study.name)
        for split, sha256 in study.data_sha256.items():
            self._note(self.copier.file(paths.data / f"{split}.jsonl", Sum(sha256)))
        self._note(self.copier.moved_json(paths.resolved))
        if paths.report.is_file():
            self.copier.file(paths.report)
        artifacts: dict[int, list[Artifact]] = {}
        for each in self.copy.artifacts.all(study.name):
            artifacts.setdefault(each.number, []).append(each)
        for trial in self.copy.trials.all(study.name):
            self._trial(study.name, trial, paths.trial(trial.number), artifacts.get(trial.number, []))

    def _trial(self, study: str, trial: TrialRecord, paths: TrialPaths, recorded: list[Artifact]) -> None:
        if paths.spec.is_file():
            self._note(self.copier.moved_json(paths.spec))
        for path in (*paths.folder.glob("error*.txt"), *paths.folder.glob("process-*.log")):
            self.copier.file(path)
        if trial.outcome is None:
            self._running(study, paths)
            return
        if _left(paths, trial.outcome):
            self.copier.file(paths.result)
        part: TrialPart = "frozen" if trial.outcome.is_open else "adapter"
        if recorded:
            self._recorded(study, paths, part, recorded)
        elif folder_of(paths, part).is_dir() and (trial.outcome.is_open or trial.outcome is Outcome.COMPLETE):
            self._note(self.copier.folder(folder_of(paths, part)))  # from before files were recorded

    def _running(self, study: str, paths: TrialPaths) -> None:
        """Copy the last frozen state of a running trial, if it is older than the database's copy, and intact."""
        sealed = paths.frozen / SEAL
        if not sealed.is_file() or datetime.fromtimestamp(sealed.stat().st_mtime, UTC) > self.at:
            return
        wrong = self.copier.folder(paths.frozen)
        copied = self.copier.target_of(paths.frozen)
        if wrong or broken_seal(copied, owner(study, paths.number)):
            shutil.rmtree(copied, ignore_errors=True)  # frozen anew in the meantime: in the copy it begins again

    def _recorded(self, study: str, paths: TrialPaths, part: TrialPart, recorded: list[Artifact]) -> None:
        sums = {each.path.removeprefix(f"{part}/"): Sum(each.sha256, each.bytes) for each in recorded}
        wrong = self.copier.files_of(folder_of(paths, part), sums)
        if not wrong:
            return
        if list(self.live.artifacts.all(study, paths.number)) == recorded:
            self._note(wrong)  # unchanged since, so it is damaged: `doctor` names it in the copy, too
        elif self.may_change:
            self.copy.artifacts.forget(study, paths.number)


def _left(paths: TrialPaths, outcome: Outcome) -> bool:
    """Return whether the copied database has the trial's result on disk: it may have ended since."""
    try:
        result = TrialResult.model_validate_json(paths.result.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return False
    return result.outcome.is_open == outcome.is_open


def _starts(studies: tuple[StudyRecord, ...]) -> set[tuple[str, int]]:
    """Return the registered versions that studies start from."""
    names: set[str] = set()
    for study in studies:
        with suppress(StudyStateError):  # another version of sweeper stored it, so it cannot be resumed here either
            names |= {model.name for model in stored_config(study).models.values()}
    parsed = [name.removeprefix(STARTED_FROM).rpartition("@") for name in names if name.startswith(STARTED_FROM)]
    return {(name, int(version)) for name, _, version in parsed if version.isdecimal()}


@contextmanager
def _staged(home: Home, destination: Path) -> Iterator[Path]:
    """Yield a folder that becomes the destination when it is full; nothing is left of it if anything fails."""
    if destination.exists() or destination.is_symlink():
        raise BackupError(f"{destination} exists already: name a folder that does not")
    if destination.is_relative_to(home.folder):
        raise BackupError(f"{destination} is inside the home {home.folder}: name a folder outside it")
    try:
        with new_folder(destination) as folder:
            yield folder
    except OSError as error:
        raise BackupError(f"{destination} cannot be written ({error.strerror or error}); nothing was left") from error


class Copier:
    """Copies files from a home to a new one, counting them and their bytes."""

    def __init__(self, home: Home, target: Path, final: Path, on_bytes: Callable[[int], None]) -> None:
        self._home = home
        self._target = target
        self._final = final
        self._on_bytes = on_bytes
        self.bytes = self.files = 0

    def target_of(self, path: Path) -> Path:
        """Return where a path of the home is in the copy."""
        return self._target / path.relative_to(self._home.folder)

    def file(self, path: Path, expected: Sum | None = None) -> str | None:
        """Copy a file, and return what is wrong with it: then there is no copy."""
        target = self.target_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = copy_file(path, target, self._on_bytes, follow_link=True)
        except FileNotFoundError:
            return f"{path} is missing"
        if expected is not None and (found.sha256 != expected.sha256 or expected.bytes not in (None, found.bytes)):
            target.unlink()
            return f"{path} is not what was recorded"
        self.bytes, self.files = self.bytes + (found.bytes or 0), self.files + 1
        return None

    def files_of(self, folder: Path, expected: Mapping[str, Sum | None]) -> list[str]:
        """Copy files of a folder, all or none, and return what is wrong with them."""
        wrong = [text for name, of in expected.items() if (text := self.file(folder / name, of)) is not None]
        if wrong:
            shutil.rmtree(self.target_of(folder), ignore_errors=True)
        return wrong

    def folder(self, folder: Path) -> list[str]:
        """Copy all files of a folder of which nothing is recorded, all or none."""
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return self.files_of(folder, dict.fromkeys(names))

    def moved_json(self, path: Path) -> str | None:
        """Copy a JSON file in which paths below the home become paths below the copy."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"{path} is missing"
        except (OSError, ValueError) as error:
            return f"{path} is damaged ({type(error).__name__})"
        write_json(self.target_of(path), self._moved(value))
        self.files += 1
        return None

    def _moved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._moved(each) for each in value]
        before = f"{self._home.folder}/"
        if isinstance(value, str) and value.startswith(before):
            return f"{self._final}/{value.removeprefix(before)}"
        return value
