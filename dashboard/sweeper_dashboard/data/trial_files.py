"""Files of a trial, and commands that run it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.config.orders import differing, values_of
from sweeper.config.study import valid_name
from sweeper.errors import StudyStateError
from sweeper.paths import Home, TrialPaths
from sweeper.redact import clean
from sweeper.registry.lineage import initial_trial
from sweeper.store import TrialRecord
from sweeper.study.orders import space_of_study
from sweeper.study.reproduce import study_file_of
from sweeper_dashboard.data import frames, home
from sweeper_dashboard.data.trials import Trial

MOST_FILES = 500
_TAIL_BYTES = 64 * 1024
_TAIL_LINES = 300
_RANKS = 64


def facts(found: Trial) -> pd.DataFrame:
    """Return a trial's device, cost and hashes as two columns of text."""
    record = found.record
    told = {
        "device": record.device,
        "number type": record.dtype,
        "attention": record.attention,
        "rows per forward pass": record.micro_batch,
        "peak memory": _bytes(record.peak_memory_bytes),
        "training time": f"{record.train_seconds:,.1f} s" if record.train_seconds else None,
        "training tokens": f"{record.tokens:,}" if record.tokens else None,
        "tokens per second": _rate(record),
        "epochs trained": f"{record.epochs_trained:.3g}",
        "best step": record.best_step,
        "latency": None if record.latency_ms is None else f"{record.latency_ms:.3g} ms a token",
        "adapter": _bytes(record.adapter_bytes),
        "weights, base and adapter": f"{record.total_parameters:,}" if record.total_parameters else None,
        "base model": record.base_model,
        "base model hash": record.base_model_fingerprint,
        "adapter hash": record.adapter_sha256,
        "seed": record.seed,
        "kind": record.kind.value,
        "started (UTC)": f"{record.started_at:%Y-%m-%d %H:%M:%S}",
        "ended (UTC)": None if record.finished_at is None else f"{record.finished_at:%Y-%m-%d %H:%M:%S}",
    }
    rows = [{"what": name, "value": clean(value)} for name, value in told.items() if value is not None]
    return frames.frame(rows, ["what", "value"])


def _rate(record: TrialRecord) -> str | None:
    return f"{record.tokens / record.train_seconds:,.0f}" if record.tokens and record.train_seconds else None


def _bytes(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1024**3:.2f} GiB" if count >= 1024**3 else f"{count / 1024**2:.1f} MiB"


def files(found: Trial) -> pd.DataFrame:
    """Return the files of a trial's folder with their sizes, at most ``MOST_FILES``."""
    paths = _paths(found)
    held = [] if paths is None else sorted(path for path in paths.folder.rglob("*") if path.is_file())[:MOST_FILES]
    rows = [
        {"file": path.relative_to(paths.folder).as_posix(), "KiB": path.stat().st_size / 1024}
        for path in held
        if paths is not None
    ]
    return frames.frame(rows, ["file", "KiB"])


def logs(found: Trial) -> dict[str, str]:
    """Return the ends of a trial's error and log files by name, with secrets removed."""
    paths = _paths(found)
    if paths is None:
        return {}
    wanted = [file for rank in range(_RANKS) for file in (paths.error(rank), paths.log(rank))]
    return {file.name: _tail(file) for file in wanted if file.is_file()}


def _tail(file: Path) -> str:
    """Return the last lines of a text file of any length."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _TAIL_BYTES))
        text = opened.read().decode("utf-8", errors="replace")
    lines = home.said(text).splitlines()
    left_out = ["..."] if size > _TAIL_BYTES or len(lines) > _TAIL_LINES else []
    return "\n".join([*left_out, *lines[-_TAIL_LINES:]])


def _paths(found: Trial) -> TrialPaths | None:
    """Return a trial's paths; None if its study's name could lead out of the home."""
    try:
        return Home.current().study(valid_name(found.study)).trial(found.number)
    except ValueError:
        return None


def initial(found: Trial) -> int | None:
    """Return the trial whose weights a trial started from; None for the base model, or if its files are gone.

    Raises:
        RegistryError: If its specification is damaged.
    """
    return None if _paths(found) is None else initial_trial(Home.current(), found.study, found.number)


def clone_command(found: Trial) -> str:
    """Return the command that runs a trial's configuration as a new trial of its study, from the same weights."""
    source = initial(found)
    if source is None:
        return clean(shlex.join(["sweeper", "clone", found.study, str(found.number)]))
    space = space_of_study(found.of.record)
    before, after = (values_of(space, found.of.trials[of].parameters) for of in (source, found.number))
    values = [f"{name}={_written(after[name])}" for name in differing(space, before, after) if name in after]
    return clean(shlex.join(["sweeper", "clone", found.study, str(source), *values, "--from-weights"]))


def _written(value: Any) -> str:
    """Return a value as the command line reads it: a plain word unchanged, anything else as JSON."""
    plain = isinstance(value, str) and value.isidentifier() and value not in ("null", "true", "false")
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def export_command(found: Trial) -> str | None:
    """Return the command that exports a TRL recipe; None if nothing was registered from the trial."""
    if not found.versions:
        return None
    name, version = found.versions[-1]
    out = f"{name}-v{version}-trl"
    return clean(shlex.join(["sweeper", "export", name, "--version", str(version), "--format", "trl", "--out", out]))


def run_command(found: Trial) -> str:
    """Return the command that runs the file of ``study_file``."""
    return clean(shlex.join(["sweeper", "run", file_name(found)]))


def file_name(found: Trial) -> str:
    """Return the name of the file of ``study_file``."""
    return f"{found.study}-trial-{found.number}.yaml"


def study_file(found: Trial) -> str:
    """Return a study file that runs exactly this configuration once.

    Raises:
        StudyStateError: If the trial's files are gone, or from another version of sweeper.
    """
    if _paths(found) is None:
        raise StudyStateError(f"the name of study {found.study!r} is invalid, so its files cannot be found")
    with home.database() as database:
        return study_file_of(Home.current(), database, found.study, found.number)
