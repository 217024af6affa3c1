"""The files of an adapter version: which are taken, how they are copied, and whether they are still the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sweeper.errors import RegistryError
from sweeper.files import checksums

ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
"""Weights and configuration of an adapter, as PEFT writes them."""

MODEL = ("model.safetensors", "config.json")
"""Weights and configuration of a whole model, as transformers writes them: full fine-tuning trains no adapter."""

OPTIONAL = (
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Taken where they are there; anything else in the folder (checkpoints, optimizer state) stays behind."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Formats that run code when they are loaded."""

_CHUNK_BYTES = 1024 * 1024


def check_source(folder: Path) -> tuple[str, ...]:
    """Return the names of the files to take from an adapter folder.

    Raises:
        RegistryError: If it is no adapter folder, or holds pickles, links or broken files.
    """
    try:
        return _checked_names(folder)
    except OSError as error:
        raise RegistryError(f"adapter folder {folder} cannot be read ({error.strerror})") from error


def _checked_names(folder: Path) -> tuple[str, ...]:
    if folder.is_symlink() or not folder.is_dir():
        raise RegistryError(f"adapter folder {folder} is missing or is not a plain folder")
    names = sorted(os.listdir(folder))
    for name in names:
        if name.lower().endswith(PICKLES):
            raise RegistryError(f"adapter folder {folder} holds the pickle {name!r}: save it as safetensors")
        mode = (folder / name).lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise RegistryError(f"adapter folder {folder} holds {name!r}, a link or special file: put the file there")
    files = {name for name in names if (folder / name).is_file()}
    needed = _needed(files)
    missing = set(needed) - files
    if missing:
        raise RegistryError(f"adapter folder {folder} lacks {' and '.join(sorted(missing))}")
    _check_content(*(folder / name for name in needed))
    return tuple(name for name in names if name in {*needed, *OPTIONAL} & files)


def weights_name(names: Collection[str]) -> str:
    """Return which of an adapter's files holds the weights."""
    return _needed(names)[0]


def _needed(names: Collection[str]) -> tuple[str, str]:
    return MODEL if MODEL[0] in names and ADAPTER[0] not in names else ADAPTER


def _check_content(weights: Path, config: Path) -> None:
    """Read both headers: a broken adapter is better refused now than when it is served."""
    try:
        with safe_open(weights, framework="numpy") as tensors:
            empty = not list(tensors.keys())
    except SafetensorError as error:
        raise RegistryError(f"{weights} is not a valid safetensors file: {error}") from error
    if empty:
        raise RegistryError(f"{weights} holds no tensors")
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{config} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise RegistryError(f"{config} must hold a JSON object, as PEFT or transformers writes it")


def copy(source: Path, names: tuple[str, ...], target: Path) -> dict[str, str]:
    """Copy files to the new folder ``target`` and return the SHA-256 of each.

    All appear at once: they are written to a temporary folder beside, which is then renamed.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.mkdir(parents=True)
        hashes = {name: _copy_file(source / name, temporary / name) for name in names}
        _make_way(target, hashes)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(target.parent)
    return hashes


def _make_way(target: Path, hashes: Mapping[str, str]) -> None:
    """Remove what a crash left at ``target`` where it is the same, else set it aside: it may be the only copy."""
    if not target.exists():
        return
    if not differences(target, hashes):
        shutil.rmtree(target)
        return
    taken = len(list(target.parent.glob(f"unregistered-{target.name}-*")))
    target.rename(target.with_name(f"unregistered-{target.name}-{taken + 1}"))


def _copy_file(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    # O_NOFOLLOW: no link that appeared after the check is followed.
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(reader, "rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_bytes(folder: Path) -> int:
    """Return the size of all files in ``folder``."""
    return sum(file.stat().st_size for file in folder.iterdir())


def differences(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Return what is not as registered, one line a file; an empty list where all is well."""
    return checksums.differences(folder, {name: checksums.Sum(sha256) for name, sha256 in hashes.items()}, "registered")
