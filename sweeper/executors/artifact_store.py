"""Files of a study, exchanged between machines that have homes of their own, through any store that fsspec knows.

A folder is a manifest and its files by their SHA-256. The manifest is written last and read first, so that a folder is
there as a whole or as it was before, and whatever is fetched is what was kept, byte by byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from sweeper.config.base import Frozen
from sweeper.errors import HardwareError, StudyStateError
from sweeper.files.temporary import temporary_path

SHARED = "shared"
DATA = "data"
"""What a study's own files are kept as, before any trial."""

_TRIES = 3
"""A manifest may be replaced while its files are fetched: then the new one is."""


class _File(Frozen):
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


_MANIFEST = TypeAdapter(dict[str, _File])


class ArtifactStore(Protocol):
    """Where the files of trials are besides the home of whoever trains them."""

    def keep(self, name: str, folder: Path) -> None:
        """Let other machines have a folder as it is now."""

    def fetch(self, name: str, folder: Path) -> bool:
        """Make a folder what was kept last, by whichever machine; False where nothing was."""

    def forget(self, name: str, part: str) -> None:
        """Keep a part of a folder no more."""


class NoArtifactStore:
    """The home is one folder for all workers: there is nothing to exchange."""

    def keep(self, name: str, folder: Path) -> None:
        """Nothing to do."""

    def fetch(self, name: str, folder: Path) -> bool:
        """Nothing to do: the folder is what it is."""
        return folder.exists()

    def forget(self, name: str, part: str) -> None:
        """Nothing to do."""


class ObjectStore:
    """A prefix of an object store, or a folder.

    Args:
        url: As fsspec has it, such as ``s3://bucket/prefix``; credentials come from the environment.

    Attributes:
        url: The same.

    Raises:
        HardwareError: If the package for such a URL is not installed, or it is none.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise HardwareError(
                f"executor.artifacts is {url}, which needs a package: {error}; pip install 'sweeper[object-store]'"
            ) from error
        except ValueError as error:
            raise HardwareError(f"executor.artifacts is {url}: {error}") from error
        self.url = url
        self._root = str(root).rstrip("/")

    def keep(self, name: str, folder: Path) -> None:
        """Upload a folder: what is there already stays, and what the folder has no more goes last."""
        before = self._manifest(name)
        now = {path: _described(folder / path) for path in _files(folder)}
        place = f"{self._root}/{name}"
        self._files.makedirs(f"{place}/files", exist_ok=True)
        there = {file.sha256 for file in before.values()}
        for path, file in now.items():
            if file.sha256 not in there:
                self._put(folder / path, f"{place}/files/{file.sha256}")
                there.add(file.sha256)
        self._write(f"{place}/manifest.json", _MANIFEST.dump_json(now))
        for old in {file.sha256 for file in before.values()} - {file.sha256 for file in now.values()}:
            self._remove(f"{place}/files/{old}")

    def fetch(self, name: str, folder: Path) -> bool:
        """Download what a folder lacks or has otherwise, and remove what was not kept.

        Raises:
            StudyStateError: If something is missing in the store, or is not what was kept.
        """
        for attempt in range(_TRIES):
            manifest = self._manifest(name)
            if not manifest:
                return False
            try:
                for path, file in manifest.items():
                    if not _is(folder / path, file):
                        self._get(f"{self._root}/{name}/files/{file.sha256}", folder / path, file)
                break
            except FileNotFoundError as error:
                if attempt == _TRIES - 1:
                    raise self._damaged(name, f"{error} is missing") from error
        for extra in set(_files(folder)) - set(manifest):
            (folder / extra).unlink()
        for empty in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            if not any(empty.iterdir()):
                empty.rmdir()
        return True

    def forget(self, name: str, part: str) -> None:
        """Take what is below a part of a folder out of its manifest, then remove the files that nothing names any more.

        Raises:
            StudyStateError: If the manifest is damaged.
        """
        before = self._manifest(name)
        now = {path: file for path, file in before.items() if not path.startswith(f"{part}/")}
        if len(now) == len(before):
            return
        self._write(f"{self._root}/{name}/manifest.json", _MANIFEST.dump_json(now))
        for old in {file.sha256 for file in before.values()} - {file.sha256 for file in now.values()}:
            self._remove(f"{self._root}/{name}/files/{old}")

    def _manifest(self, name: str) -> dict[str, _File]:
        try:
            content = self._files.cat_file(f"{self._root}/{name}/manifest.json")
        except FileNotFoundError:
            return {}
        try:
            manifest = _MANIFEST.validate_json(content)
        except ValidationError as error:
            raise self._damaged(name, "its manifest cannot be read") from error
        if bad := next((path for path in manifest if not _stays_inside(path)), None):
            raise self._damaged(name, f"{bad!r} leads out of its folder")
        return manifest

    def _put(self, file: Path, place: str) -> None:
        """Upload a file under a name of its own first, where a store shows what is half written."""
        if "file" not in _protocols(self._files):
            self._files.put_file(str(file), place)
            return
        temporary = f"{place}.{os.getpid()}.tmp"
        self._files.put_file(str(file), temporary)
        os.replace(temporary, place)

    def _write(self, place: str, content: bytes) -> None:
        if "file" not in _protocols(self._files):
            self._files.pipe_file(place, content)
            return
        temporary = Path(f"{place}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(place)

    def _remove(self, place: str) -> None:
        with suppress(FileNotFoundError):  # another worker removes the same, by the same policy
            self._files.rm_file(place)

    def _get(self, place: str, path: Path, file: _File) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        try:
            self._files.get_file(place, str(temporary))
            if not _is(temporary, file):
                raise self._damaged(place.removeprefix(f"{self._root}/"), f"it is not what was kept of {path.name}")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _damaged(self, name: str, what: str) -> StudyStateError:
        return StudyStateError(f"{self.url}: {name} of this study is damaged: {what}")


def trial_name(number: int) -> str:
    """Return what the folder of a trial is kept as."""
    return f"trials/{number:05d}"


def keep_study(artifact_store: ArtifactStore, folder: Path) -> None:
    """Let other machines have what a study began with: its splits, and what it was resolved to."""
    staged = temporary_path(folder / "upload")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        shutil.copytree(folder / "data", staged / "data", copy_function=os.link)
        os.link(folder / "resolved.json", staged / "resolved.json")
        artifact_store.keep(DATA, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _files(folder: Path) -> Iterator[str]:
    """Yield every file of a folder by its path in it; those with a point are still being written."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in parts):
            yield PurePosixPath(*parts).as_posix()


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and bool(pure.parts)


def _described(path: Path) -> _File:
    with path.open("rb") as file:
        return _File(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=file.tell())


def _is(path: Path, file: _File) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and _described(path) == file
