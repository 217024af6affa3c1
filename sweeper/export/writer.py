"""Exports, all or nothing: written to a folder beside the destination, verified there, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sweeper.errors import ExportError
from sweeper.export import adapter, axolotl, llama_factory, merged, trl, vllm
from sweeper.export.source import Exported, ExportSource, Format
from sweeper.files.atomic import new_folder, write_json
from sweeper.files.checksums import sha256_of

FORMATS: dict[str, Format] = {
    "trl": trl,
    "axolotl": axolotl,
    "llama-factory": llama_factory,
    "adapter": adapter,
    "vllm": vllm,
    "merged": merged,
}
"""Every export format by its name on the command line."""

MANIFEST = "sweeper-export.json"
"""Marks a folder as an export; only such a folder is ever replaced."""


def export(source: ExportSource, format: str, out: Path, *, force: bool = False) -> Exported:
    """Write ``source`` in a format of ``FORMATS`` to the new or empty folder ``out``, and verify it by loading it.

    ``force`` replaces an earlier export, but never a folder that no export wrote.

    Raises:
        ExportError: If the format is unknown, ``out`` cannot be written, or the export does not verify. Nothing is
            left behind then, and an earlier export is unchanged.
    """
    steps = FORMATS.get(format)
    if steps is None:
        raise ExportError(f"unknown export format {format!r}; choose from {', '.join(FORMATS)}")
    out = Path(os.path.abspath(out))
    with _explained(out):
        _check_destination(source, out, force=force)
        with new_folder(out) as folder:
            notes = [*steps.write(source, folder, out), *steps.verify(source, folder)]
            write_json(folder / MANIFEST, _manifest(source, format, folder))
    return Exported(format, out, tuple(sorted(path for path in out.rglob("*") if path.is_file())), tuple(notes))


def _check_destination(source: ExportSource, out: Path, *, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out} is a file or a link, not a folder; name another folder with --out")
    inputs = (source.adapter_folder, source.base.folder, source.train.path, source.validation.path)
    for needed in (Path(path).resolve() for path in inputs):
        if needed.is_relative_to(out.resolve()):
            raise ExportError(f"{out} holds files to be exported ({needed.name}); name another folder with --out")
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
