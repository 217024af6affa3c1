"""What disks and people do to files."""

from __future__ import annotations

from pathlib import Path


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip(file: Path) -> None:
    """One bit, in the last byte: the length stays, and no header notices."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def lose(file: Path) -> None:
    file.unlink()


HOW = {"cut": (cut, "bytes, recorded were"), "flipped": (flip, "has changed"), "gone": (lose, "is missing")}
"""How a file is damaged, and what is said of it."""
