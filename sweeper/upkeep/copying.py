"""Copying files of a home that may change meanwhile, each checked against its recorded sum."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeper.files.atomic import write_json
from sweeper.files.checksums import Sum, copy_file
from sweeper.paths import Home


class Copier:
    """Copies files from a home to what is to be one, counting their bytes.

    Attributes:
        bytes: What was copied.
        files: How many files.
    """

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
