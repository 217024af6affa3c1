"""Adapter versions: files under the home, rows in the database, one production version a name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweeper.config.study import valid_name
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry import files
from sweeper.registry.lineage import Lineage, scores, trace
from sweeper.registry.stages import check_move
from sweeper.store import AdapterRecord, Database, Stage, did_you_mean

_VERSION_FOLDER = re.compile(r"\.?v(\d+)(\.tmp)?")


@dataclass(frozen=True)
class AdapterVersion:
    """A registered adapter.

    Attributes:
        name: The adapter's name.
        version: Counts from 1 per name; never given twice, not even after a deletion.
        stage: Candidate, staging, production or archived.
        folder: Its files, as PEFT loads them; of full fine-tuning a model, as transformers does.
        sha256: SHA-256 of the weights.
        bytes: Size of all files.
        files: SHA-256 of every file by name.
        scores: {split: {metric: {score, low, high, diff_to_base, ...}}}.
        lineage: Where it came from.
        created_at: When it was registered (UTC).
    """

    name: str
    version: int
    stage: Stage
    folder: Path
    sha256: str
    bytes: int
    files: dict[str, str]
    scores: dict[str, Any]
    lineage: Lineage
    created_at: datetime

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class Registry:
    """The adapters of a home. Several processes may use it at once."""

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database

    def register(self, name: str, source: Path, *, study: str, trial: int, parent: int | None = None) -> AdapterVersion:
        """Copy a trial's adapter into the registry as the next version of ``name``, a candidate.

        The lineage and the scores are those that the database holds of study and trial. A crash leaves no half
        version: the next call removes what it left behind.

        Args:
            name: The adapter's name; a study's name is usual.
            source: The folder that PEFT wrote.
            study: The study that trained it.
            trial: The number of the trial that trained it.
            parent: The version of ``name`` that it is made to replace.

        Raises:
            RegistryError: If the name, the folder or the parent cannot be used; then nothing is registered.
            StudyStateError: If study or trial do not exist.
        """
        _check_name(name)
        taken = files.check_source(source)
        lineage = trace(self._database, study, trial, parent)
        if parent is not None:
            self.get(name, parent)
        with self._locked(name):
            self._clean(name)
            version = self._database.adapters.last_version(name) + 1
            folder = self._home.adapter(name, version)
            hashes = files.copy(source, taken, folder)
            self._database.adapters.add(
                AdapterRecord(
                    name=name,
                    version=version,
                    study=study,
                    number=trial,
                    stage=Stage.CANDIDATE,
                    path=folder.relative_to(self._home.folder).as_posix(),
                    sha256=hashes[files.weights_name(hashes)],
                    bytes=files.size_bytes(folder),
                    files=hashes,
                    scores=scores(self._database, study, trial),
                    lineage=asdict(lineage),
                    created_at=datetime.now(UTC),
                )
            )
        return self.get(name, version)

    def get(self, name: str, which: int | Stage | None = None) -> AdapterVersion:
        """Return a version of ``name``: by number, the newest of a stage, or the newest of all.

        Raises:
            RegistryError: If there is none; names the nearest, or the versions there are.
        """
        _check_name(name)
        records = self._database.adapters.all(name)
        if not records:
            known = {record.name for record in self._database.adapters.all()}
            raise RegistryError(f"no adapter {name!r} is registered{did_you_mean(name, known)}")
        fitting = [record for record in records if which is None or which in (record.version, record.stage)]
        if not fitting:
            wanted = f"version {which}" if isinstance(which, int) else f"version in stage {which}"
            there = ", ".join(f"v{record.version} ({record.stage})" for record in records[-20:])
            raise RegistryError(f"adapter {name!r} has no {wanted}; there are: {there}")
        return self._version(fitting[-1])

    def all(self, name: str | None = None) -> tuple[AdapterVersion, ...]:
        """Return every version, or those of ``name``, by name and version."""
        return tuple(self._version(record) for record in self._database.adapters.all(name))

    def ancestors(self, version: AdapterVersion) -> tuple[str, ...]:
        """Return the registered adapters that a version was built on, nearest first, each ``NAME@VERSION`` once."""
        found: dict[str, None] = {}
        waiting = list(version.lineage.built_on)
        while waiting:
            reference = waiting.pop(0)
            if reference not in found:
                found[reference] = None
                name, _, number = reference.partition("@")
                waiting += self.get(name, int(number)).lineage.built_on
        return tuple(found)

    def move(self, name: str, version: int, stage: Stage) -> AdapterVersion:
        """Move a version to another stage; a new production version archives the former one.

        Raises:
            RegistryError: If there is no such version, the move is not allowed, or someone else moved it meanwhile.
        """
        found = self.get(name, version)
        if stage is Stage.DELETED:
            raise RegistryError(f"{found} cannot be moved to {stage}: delete it instead")
        check_move(str(found), found.stage, stage)
        if stage is Stage.PRODUCTION:
            self.verify(name, version)
        self._change(found, stage)
        return self.get(name, version)

    def verify(self, name: str, version: int) -> AdapterVersion:
        """Check every file of a version against its checksum, and return the version.

        Raises:
            RegistryError: If there is no such version, or listing every file that is missing, changed or added.
        """
        found = self.get(name, version)
        wrong = files.differences(found.folder, found.files)
        if wrong:
            raise RegistryError(f"{found} is not as it was registered: {'; '.join(wrong)}; do not use it")
        return found

    def delete(self, name: str, version: int) -> None:
        """Delete the files of an archived version. Its row stays, so that its number and lineage are never lost.

        Raises:
            RegistryError: If there is no such version, or it is not archived.
        """
        found = self.get(name, version)
        if found.stage is not Stage.ARCHIVED:
            raise RegistryError(f"{found} is {found.stage}; only an archived version can be deleted: archive it first")
        with self._locked(name):
            self._change(found, Stage.DELETED)
            self._clean(name)

    def _change(self, found: AdapterVersion, stage: Stage) -> None:
        """Change one stage, and the former production version's with it, unless someone else was faster."""
        changes = {found.version: (found.stage, stage)}
        if stage is Stage.PRODUCTION:
            others = self._database.adapters.all(found.name)
            former = {other.version: (other.stage, Stage.ARCHIVED) for other in others if other.stage is stage}
            changes = former | changes  # in this order: there are never two
        if not self._database.adapters.change_stages(found.name, changes):
            raise RegistryError(
                f"{found} or the production version was moved by someone else just now: look, and try again"
            )

    def _clean(self, name: str) -> None:
        """Remove what crashes left behind: temporary folders, and folders of deleted versions."""
        given = self._database.adapters.last_version(name)
        deleted = set(range(1, given + 1)) - {record.version for record in self._database.adapters.all(name)}
        for folder in self._home.adapter(name, 1).parent.iterdir():
            match = _VERSION_FOLDER.fullmatch(folder.name)
            if match and not folder.is_symlink() and (match[2] or int(match[1]) in deleted):
                shutil.rmtree(folder)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Let one process at a time number, copy and clean the versions of a name."""
        folder = self._home.adapter(name, 1).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                yield
        except OSError as error:
            raise RegistryError(
                f"the registry cannot write {error.filename or folder} ({error.strerror}): "
                "check its permissions and the disk's space"
            ) from error

    def _version(self, record: AdapterRecord) -> AdapterVersion:
        return AdapterVersion(
            name=record.name,
            version=record.version,
            stage=record.stage,
            folder=self._home.adapter(record.name, record.version),
            sha256=record.sha256,
            bytes=record.bytes,
            files=record.files,
            scores=record.scores,
            lineage=Lineage(**record.lineage),
            created_at=record.created_at,
        )


def _check_name(name: str) -> None:
    try:
        valid_name(name)
    except ValueError as error:
        raise RegistryError(f"adapter name {name[:120]!r}: {error}") from error
