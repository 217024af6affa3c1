"""Exports from the Adapters page, each in its own process and folder."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeper.export import writer
from sweeper.files.temporary import temporary_path
from sweeper.paths import Home
from sweeper_dashboard.data import frames, home, jobs
from sweeper_dashboard.data.changes import record

FORMATS = {name: each.TITLE for name, each in writer.FORMATS.items()}
"""Every format with its description."""

LARGEST_ZIP_BYTES = 500_000_000
_MIB = 1024**2


@dataclass(frozen=True)
class Export:
    """An export of a version in a format; files, notes and size are empty until it is done."""

    job: jobs.JobStatus
    folder: str
    files: pd.DataFrame
    notes: tuple[str, ...]
    bytes: int

    @property
    def downloadable(self) -> bool:
        """Whether it is done and small enough for a browser."""
        return self.job.state == "done" and self.bytes <= LARGEST_ZIP_BYTES


def export(name: str, version: int, format: str) -> Export:
    """Return the state of an export."""
    job, folder = jobs.look(_key(name, version, format)), _folder(name, version, format)
    done = job.state == "done" and (folder / writer.MANIFEST).is_file()
    files = _files(folder) if done else []
    shown = [{"file": str(of.relative_to(folder)), "MiB": of.stat().st_size / _MIB} for of in files]
    notes = json.loads(job.output)["notes"] if done else []
    return Export(
        job=job if done or job.state != "done" else jobs.JobStatus("none"),  # the folder was removed
        folder=home.clean(folder),
        files=frames.frame(shown, ["file", "MiB"]),
        notes=tuple(home.clean(note) for note in notes),
        bytes=sum(of.stat().st_size for of in files),
    )


def start(name: str, version: int, format: str, actor: str) -> str:
    """Start an export, and return a message; it replaces an earlier one of the same once it is written.

    Raises:
        SweeperError: If it is already running.
    """
    out = _folder(name, version, format)
    asked = ["export", name, "--version", str(version), "--format", format, "--out", str(out), "--force", "--json"]
    jobs.start(_key(name, version, format), asked)
    message = f"{name} v{version} is being exported as {format}"
    with home.changing() as database:
        record(database, actor, "export", name, version, message)
    return home.clean(message)


def zipped(name: str, version: int, format: str) -> Path:
    """Return an export as one zip file, written unless there is one of the current export."""
    folder = _folder(name, version, format)
    path, made_from = folder.with_name(f"{folder.name}.zip"), (folder / writer.MANIFEST).stat().st_mtime
    if not path.is_file() or path.stat().st_mtime < made_from:
        temporary = temporary_path(path)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:  # weights do not become smaller
            for file in _files(folder):
                archive.write(file, Path(folder.name) / file.relative_to(folder))
        temporary.replace(path)
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _folder(name: str, version: int, format: str) -> Path:
    return Home.current().folder / "exports" / f"{name}-v{version}-{format}"


def _key(name: str, version: int, format: str) -> str:
    return f"export-{name}-v{version}-{format}"
