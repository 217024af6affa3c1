"""What files were when they were written, and whether they still are: trials and registered versions alike."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper.files.atomic import read_json, write_json

SEAL = "seal.json"
"""Of a folder that is written again and again: the sums of its other files, written and renamed together with them."""


@dataclass(frozen=True)
class Sum:
    """Length and SHA-256 of a file; ``bytes`` is None where the length was not kept."""

    sha256: str
    bytes: int | None = None


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sums_of(folder: Path) -> dict[str, Sum]:
    """Return the sum of every file below ``folder``, by its path in it."""
    return {name: Sum(sha256_of(folder / name), (folder / name).stat().st_size) for name in _names(folder)}


def differences(folder: Path, expected: Mapping[str, Sum], said: str = "recorded") -> list[str]:
    """Return what is not as it was ``said`` to be, one line a file; an empty list where all is well."""
    if folder.is_symlink() or not folder.is_dir():
        return [f"the folder {folder} is missing"]
    extra = [f"{name} was not {said}" for name in _names(folder) if name not in expected]
    found = (_difference(folder / name, name, of, said) for name, of in sorted(expected.items()))
    return [line for line in found if line is not None] + extra


def seal(folder: Path, owner: str) -> None:
    """Write the sums of a folder's files into it, and whose they are."""
    write_json(folder / SEAL, {"of": owner, "files": {name: asdict(each) for name, each in sums_of(folder).items()}})


def owner(study: str, number: int) -> str:
    """Return whose the sealed folder of a trial is, in words."""
    return f"trial {number} of {study}"


def broken_seal(folder: Path, owner: str) -> list[str]:
    """Return what is not as the folder's seal says; an empty list where all is well, or where there is no seal."""
    if not (folder / SEAL).is_file():
        return []
    try:
        sealed: dict[str, Any] = read_json(folder / SEAL)
        files = {name: Sum(**of) for name, of in sealed["files"].items()}
        of = sealed["of"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{SEAL} is damaged ({type(error).__name__})"]
    if of != owner:
        return [f"it is of {of}, not of {owner}"]
    return [line for line in differences(folder, files) if not line.startswith(f"{SEAL} ")]


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _difference(file: Path, name: str, expected: Sum, said: str) -> str | None:
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            return f"{name} is not a regular file any more"
        if expected.bytes is not None and status.st_size != expected.bytes:
            return f"{name} has {status.st_size:,} bytes, {said} were {expected.bytes:,}"
        found = sha256_of(file)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    if found == expected.sha256:
        return None
    return f"{name} has changed (SHA-256 {found[:12]}, {said} as {expected.sha256[:12]})"
