"""The files of an adapter version: their selection, copying and verification."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sweeper.errors import RegistryError
from sweeper.files import checksums
from sweeper.files.atomic import new_folder

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
"""Taken if present; anything else in the folder (checkpoints, optimizer state) stays behind."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Formats that run code when they are loaded."""


def check_source(folder: Path) -> tuple[str, ...]:
    """Return the names of the files to take from an adapter folder.

    Raises:
        RegistryError: If it is not an adapter folder, or holds pickles, links or broken files.
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
    """Read both headers: better to refuse a broken adapter now than when it is served."""
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
    """Copy files to the new folder ``target``, all or none, and return the SHA-256 of each."""
    with new_folder(target) as folder:
        hashes = {name: checksums.copy_file(source / name, folder / name).sha256 for name in names}
        if target.exists() and differences(target, hashes):  # left by a crash, and maybe the only copy
            taken = len(list(target.parent.glob(f"unregistered-{target.name}-*")))
            target.rename(target.with_name(f"unregistered-{target.name}-{taken + 1}"))
    return hashes


def differences(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Return the files that are not as registered, one line each; an empty list if all are."""
    return checksums.differences(folder, {name: checksums.Sum(sha256) for name, sha256 in hashes.items()}, "registered")
