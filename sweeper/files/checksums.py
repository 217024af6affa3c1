"""Checksums of files when they were written, and checks of files against them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper.files.atomic import read_json, write_json

SEAL = "seal.json"
"""In a folder that is rewritten often: the sums of its other files, written and renamed together with them."""

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Sum:
    """Length and SHA-256 of a file; ``bytes`` is None if the length was not kept."""

    sha256: str
    bytes: int | None = None


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def copy_file(
    source: Path, target: Path, on_bytes: Callable[[int], None] = lambda size: None, *, follow_link: bool = False
) -> Sum:
    """Copy a file and return the sum of what was written; a link is an ``OSError`` unless it is to be followed."""
    digest, size = hashlib.sha256(), 0
    reader = os.open(source, os.O_RDONLY | (0 if follow_link else os.O_NOFOLLOW))
    with os.fdopen(reader, "rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return Sum(digest.hexdigest(), size)


def sums_of(folder: Path) -> dict[str, Sum]:
    """Return the sum of every file below ``folder``, by its path in it."""
    return {name: Sum(sha256_of(folder / name), (folder / name).stat().st_size) for name in _names(folder)}


def differences(folder: Path, expected: Mapping[str, Sum], state: str = "recorded") -> list[str]:
    """Return the files that are not as expected, one line each; an empty list if all are."""
    if folder.is_symlink() or not folder.is_dir():
        return [f"the folder {folder} is missing"]
    extra = [f"{name} was not {state}" for name in _names(folder) if name not in expected]
    found = (_difference(folder / name, name, of, state) for name, of in sorted(expected.items()))
    return [line for line in found if line is not None] + extra


def seal(folder: Path, owner: str) -> None:
    """Write the sums of a folder's files into it, and their owner."""
    write_json(folder / SEAL, {"of": owner, "files": {name: asdict(each) for name, each in sums_of(folder).items()}})


def owner(study: str, number: int) -> str:
    """Return the owner of a trial's sealed folder, in words."""
    return f"trial {number} of {study}"


def broken_seal(folder: Path, owner: str) -> list[str]:
    """Return what differs from the folder's seal, one line a file; an empty list if nothing does or it has none."""
    if not (folder / SEAL).is_file():
        return []
    try:
        sealed: dict[str, Any] = read_json(folder / SEAL)
        files = {name: Sum(**of) for name, of in sealed["files"].items()}
        of = sealed["of"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{SEAL} is damaged ({type(error).__name__})"]
    if of != owner:
        return [f"it belongs to {of}, not to {owner}"]
    return [line for line in differences(folder, files) if not line.startswith(f"{SEAL} ")]


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _difference(file: Path, name: str, expected: Sum, state: str) -> str | None:
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            return f"{name} is no longer a regular file"
        if expected.bytes is not None and status.st_size != expected.bytes:
            return f"{name} has {status.st_size:,} bytes, {state} were {expected.bytes:,}"
        found = sha256_of(file)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    if found == expected.sha256:
        return None
    return f"{name} has changed (SHA-256 {found[:12]}, {state} as {expected.sha256[:12]})"
