"""Writing an export: into a folder beside its destination, verified there, then renamed; all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sweeper.errors import ExportError
from sweeper.export import adapter, axolotl, llama_factory, merged, trl
from sweeper.export.source import Exported, ExportSource, Format
from sweeper.files.atomic import write_json
from sweeper.files.checksums import sha256_of

FORMATS: dict[str, Format] = {
    "trl": Format(trl.write, trl.verify),
    "axolotl": Format(axolotl.write, axolotl.verify),
    "llama-factory": Format(llama_factory.write, llama_factory.verify),
    "adapter": Format(adapter.write, adapter.verify),
    "merged": Format(merged.write, merged.verify),
}
"""Every export format by the name it has on the command line."""

MANIFEST = "sweeper-export.json"
"""Marks a folder as an export; only such a folder is ever replaced."""


def export(source: ExportSource, format: str, out: Path, *, force: bool = False) -> Exported:
    """Write ``source`` in ``format`` to the folder ``out``, and check it by loading what was written.

    Args:
        source: The adapter and what led to it.
        format: A name in ``FORMATS``.
        out: Folder to create; an empty one may exist.
        force: Replace an earlier export. A folder that sweeper did not export is never replaced.

    Returns:
        The files, and notes for the user.

    Raises:
        ExportError: If the format is unknown, ``out`` cannot be written, or the export does not verify. Nothing is
            left behind then, and an earlier export stays as it was.
    """
    steps = FORMATS.get(format)
    if steps is None:
        raise ExportError(f"unknown export format {format!r}; known are {', '.join(FORMATS)}")
    out = Path(os.path.abspath(out))
    with _explained(out):
        _check_destination(source, out, force=force)
    with _explained(out), _staging(out) as folder:
        notes = [*steps.write(source, folder, out), *steps.verify(source, folder)]
        write_json(folder / MANIFEST, _manifest(source, format, folder))
        _move(folder, out)
    return Exported(format, out, tuple(sorted(path for path in out.rglob("*") if path.is_file())), tuple(notes))


def _check_destination(source: ExportSource, out: Path, *, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out} is a file or a link, not a folder; name another folder with --out")
    inputs = (source.adapter_folder, source.base.folder, source.train.path, source.validation.path)
    for needed in (Path(path).resolve() for path in inputs):
        if needed.is_relative_to(out.resolve()):
            raise ExportError(f"{out} holds what is to be exported ({needed.name}); name another folder with --out")
    if not out.exists() or not any(out.iterdir()):
        return
    if not force:
        raise ExportError(f"{out} is not empty; name another folder with --out, or replace an export with --force")
    if not (out / MANIFEST).is_file():
        raise ExportError(f"{out} holds files that no export wrote; empty it yourself, or name another with --out")


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn errors of the file system into an ``ExportError``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"cannot write the export to {out}: {reason}; nothing was left there") from error


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give a private folder beside ``out``, removed at the end."""
    folder: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        yield folder
    finally:
        if folder is not None and folder.exists():
            shutil.rmtree(folder)


def _move(folder: Path, out: Path) -> None:
    """Put ``folder`` in the place of ``out``; an earlier export is removed only when the new one stands."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    if not out.exists():
        folder.rename(out)
        return
    old = folder.with_suffix(".old")
    out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _manifest(source: ExportSource, format: str, folder: Path) -> dict[str, object]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "adapter": source.adapter_name,
        "files": {str(path.relative_to(folder)): sha256_of(path) for path in files},
        "format": format,
        "study": source.study,
        "sweeper": source.sweeper_version,
        "version": source.version,
    }


def read_manifest(folder: Path) -> dict[str, object]:
    """Return the manifest of an export.

    Raises:
        ExportError: If the folder is no export.
    """
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder} is not an export: {MANIFEST} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise ExportError(f"{folder} is not an export: {MANIFEST} is not a mapping")
    return value
