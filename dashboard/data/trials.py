"""One trial: where it stands, what it was given, what it reported, why it ended, and how to run it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError
from sweeper_dashboard.data import frames, home, search
from sweeper_dashboard.data.snapshots import Snapshot, snapshot

from sweeper.config.evaluation import direction
from sweeper.config.orders import differing, values_of
from sweeper.config.space import Range, describe
from sweeper.config.study import valid_name
from sweeper.errors import StudyStateError
from sweeper.paths import Home, TrialPaths
from sweeper.redact import clean, redact
from sweeper.registry.lineage import initial_trial
from sweeper.search.pruners.history import Retraced, pruner_of, retrace
from sweeper.search.pruners.rungs import halving_of
from sweeper.store import TrialRecord
from sweeper.study.orders import space_of_study
from sweeper.study.reproduce import study_file_of

FIELD = 200
"""Other trials whose curves make the band behind a trial's own."""

MOST_FILES = 500
_TAIL_BYTES = 64 * 1024
_TAIL_LINES = 300
_RANKS = 64

_RANGES: TypeAdapter[Range] = TypeAdapter(Range)


@dataclass(frozen=True)
class Trial:
    """One trial as its page shows it.

    Attributes:
        record: The trial, as stored; its texts are cleaned before they are shown.
        of: Its study.
        outcome: How it ended, ``running`` where it has not.
        place: Its place among the complete trials by a single value, 1 for the best; None where it is not complete.
        complete: How many trials are complete.
        best: Number of the best complete trial.
        rival: The best other trial that was scored on the test split; None where none was.
        relations: (how it is related, number) of other trials: what it repeats, and which repeat it.
        versions: (adapter, version) that were registered from it.
    """

    record: TrialRecord
    of: Snapshot
    outcome: str
    place: int | None
    complete: int
    best: int | None
    rival: int | None
    relations: tuple[tuple[str, int], ...]
    versions: tuple[tuple[str, int], ...]

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.record.number

    @property
    def study(self) -> str:
        """Its study's name, as stored."""
        return self.of.record.name

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.record.outcome is None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the study's trials, in order."""
        return list(self.of.trials)

    @property
    def reason(self) -> str:
        """Why it ended where it did; empty where there is nothing to say."""
        return clean(self.record.reason or "")


def trial(study: str, number: int | None = None) -> Trial | None:
    """Return a trial; the best, or the first, where no number is given; None where the study has none yet.

    Raises:
        StudyStateError: If study or trial do not exist.
    """
    with home.database() as database:
        of = snapshot(database, database.studies.get(study))
        versions = [(a.name, a.version, a.number) for a in database.adapters.all() if a.study == study]
        scored = {evaluation.number for evaluation in database.evaluations.all(study)}
    ranked = _ranked(of)
    if number is None:
        number = next(iter(ranked or of.trials), None)
    if number is None:
        return None
    record = of.trials.get(number)
    if record is None:
        raise StudyStateError(f"study {study!r} has no trial {number}; it has {len(of.trials)} trials")
    return Trial(
        record=record,
        of=of,
        outcome=frames.outcome(record),
        place=ranked.index(number) + 1 if number in ranked else None,
        complete=len(ranked),
        best=ranked[0] if ranked else None,
        rival=next((other for other in ranked if other in scored and other != number), None),
        relations=tuple(_relations(record, of.trials.values())),
        versions=tuple((name, version) for name, version, of_trial in versions if of_trial == number),
    )


def _ranked(of: Snapshot) -> list[int]:
    done = of.table[of.table["value"].notna()]
    ordered = done.sort_values(["value", "trial"], ascending=[of.direction == "minimize", True])
    return [int(number) for number in ordered["trial"]]


def _relations(record: TrialRecord, others: Iterable[TrialRecord]) -> Iterable[tuple[str, int]]:
    own = {"repeats": record.confirms, "restarts": record.restarts, "clone of": record.clones}
    yield from ((how, number) for how, number in own.items() if number is not None)
    for other in others:
        if other.confirms == record.number:
            yield "repeated by", other.number
        if other.restarts == record.number:
            yield "restarted as", other.number
        if other.clones == record.number:
            yield "cloned as", other.number


def parameters(found: Trial) -> pd.DataFrame:
    """Return its hyperparameters beside the best trial's and the study's ranges, those that differ first."""
    best = found.of.trials.get(found.best) if found.best is not None else None
    own, theirs = _flat(found.record), {} if best is None else _flat(best)
    ranges = found.of.record.space.get("space")
    ranges = ranges if isinstance(ranges, Mapping) else {}
    rows = []
    for name in dict.fromkeys([*own, *theirs]):
        differs = best is not None and own.get(name) != theirs.get(name)
        row = {"": "differs" if differs else "", "hyperparameter": name, "this trial": _shown(own.get(name))}
        row |= {} if best is None else {f"best, trial {found.best}": _shown(theirs.get(name))}
        rows.append(row | {"searched": _range(ranges, name)})
    rows.sort(key=lambda row: not row[""])
    return frames.frame(rows, ["", "hyperparameter", "this trial"])


def _flat(record: TrialRecord) -> dict[str, Any]:
    own = {name: value for name, value in record.parameters.items() if name != "trl"}
    further = record.parameters.get("trl")
    return own | ({f"trl.{n}": value for n, value in further.items()} if isinstance(further, Mapping) else {})


def _shown(value: Any) -> str:
    """Return a value as text: a column holds numbers, words and lists alike."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _range(ranges: Mapping[str, Any], name: str) -> str:
    """Return what the study searched for a hyperparameter, of each alternative where they differ."""
    bare = name.removeprefix("trl.")
    found = {full: raw for full, raw in ranges.items() if full == bare or full.endswith(f".{bare}")}
    told = []
    for full, raw in found.items():
        try:
            words = describe(_RANGES.validate_python(raw))
        except ValidationError:
            continue
        told.append(words if full == bare else f"{full.removesuffix(f'.{bare}')}: {words}")
    return clean("; ".join(told)) if told else "not searched"


def curve(found: Trial) -> pd.DataFrame:
    """Return all that it reported: ``metric``, ``value`` and ``step``, ``epoch``, ``tokens``, ``time``, ``percent``."""
    rows = search.with_axes(found.of, search.curve_rows(found.of, [found.number]))
    total = found.record.total_steps or np.nan
    return rows.assign(percent=100 * rows["step"] / total)


def field(found: Trial) -> tuple[pd.DataFrame, int, int]:
    """Return the band of the other trials of the same length: median and quartiles by per cent of their training.

    Returns:
        A frame of ``percent``, ``low``, ``median``, ``high``, ``trials``; how many trials it is of; and of how many.
    """
    length = found.record.parameters.get("epochs")
    alike = [
        number
        for number, other in found.of.trials.items()
        if number != found.number and other.total_steps and other.parameters.get("epochs") == length
    ]
    chosen = search.sampled(alike, FIELD)
    rows = search.curve_rows(found.of, chosen, [found.of.metric]).dropna(subset=["value"])
    totals = rows["trial"].map(lambda number: found.of.trials[number].total_steps)
    rows = rows.assign(percent=(100 * rows["step"] / totals).round())
    rows = rows.drop_duplicates(["trial", "percent"])
    groups = rows.groupby("percent")["value"]
    band = pd.DataFrame(
        {
            "low": groups.quantile(0.25),
            "median": groups.median(),
            "high": groups.quantile(0.75),
            "trials": groups.count(),
        }
    ).reset_index()
    return band, rows["trial"].nunique(), len(alike)


def pruning(found: Trial) -> Retraced:
    """Return the pruner's decisions on the trial, worked out again from what is stored."""
    with home.database() as database:
        return retrace(database, found.of.record, found.record, found.of.trials.values())


def rungs(found: Trial) -> tuple[int, ...]:
    """Return the rungs of the trial, in per cent of its training; none where its pruner has none."""
    halving = halving_of(pruner_of(found.of.record), found.record.seed)
    return () if halving is None else halving.rungs


def compared(found: Retraced) -> pd.DataFrame:
    """Return the pruner's decisions as a table."""
    rows = [
        {
            "rung %": judgement.rung,
            "at %": judgement.progress,
            "value": judgement.value,
            "place": "" if judgement.place is None else f"{judgement.place} of {len(judgement.compared) + 1}",
            "go on": judgement.going_on,
            "needed": judgement.threshold,
            "decision": "pruned" if judgement.pruned else "kept",
        }
        for judgement in found.judgements
    ]
    return frames.frame(rows, ["rung %", "at %", "value", "place", "go on", "needed", "decision"])


def splits(found: Trial) -> list[str]:
    """Return the splits that the trial was scored on."""
    with home.database() as database:
        return list(dict.fromkeys(e.split for e in database.evaluations.all(found.study) if e.number == found.number))


def scores(found: Trial, split: str) -> pd.DataFrame:
    """Return its scores on a split, with intervals and the paired difference to its base model."""
    with home.database() as database:
        table = frames.scores(e for e in database.evaluations.all(found.study) if e.number == found.number)
    return table[table["split"] == split].drop(columns=["subject", "trial", "split"]).reset_index(drop=True)


def examples(found: Trial, split: str, metric: str) -> pd.DataFrame:
    """Return its examples beside its base model's, with ``won``: ``win``, ``loss`` or ``tie`` by a metric."""
    with home.database() as database:
        bases = {(of.number, of.split): of.base for of in database.evaluations.all(found.study)}
        base = database.evaluations.examples(found.study, None, split, bases.get((found.number, split), ""))
        table = frames.pairs(base, database.evaluations.examples(found.study, found.number, split), metric)
    gain = table["trial score"].astype(float) - table["base score"].astype(float)
    gain = gain if direction(metric) == "maximize" else -gain
    won = np.select([gain > 0, gain < 0], ["win", "loss"], "tie")
    return table.assign(gain=gain, won=won) if len(table) else table.assign(gain=[], won=[])


def facts(found: Trial) -> pd.DataFrame:
    """Return what it ran on, what it took and what it left, as two columns of text."""
    record = found.record
    told = {
        "device": record.device,
        "computed in": record.dtype,
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
        "begun (UTC)": f"{record.started_at:%Y-%m-%d %H:%M:%S}",
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


def events(found: Trial) -> pd.DataFrame:
    """Return what happened in the trial, oldest first."""
    with home.database() as database:
        return frames.events(database.events.all(found.study, number=found.number)).drop(columns="trial")


def files(found: Trial) -> pd.DataFrame:
    """Return the files of its folder with their sizes, at most ``MOST_FILES``."""
    paths = _paths(found)
    held = [] if paths is None else sorted(path for path in paths.folder.rglob("*") if path.is_file())[:MOST_FILES]
    rows = [
        {"file": path.relative_to(paths.folder).as_posix(), "KiB": path.stat().st_size / 1024}
        for path in held
        if paths is not None
    ]
    return frames.frame(rows, ["file", "KiB"])


def logs(found: Trial) -> dict[str, str]:
    """Return the ends of the error and log files of its processes, by the file's name; secrets removed."""
    paths = _paths(found)
    if paths is None:
        return {}
    wanted = [file for rank in range(_RANKS) for file in (paths.error(rank), paths.log(rank))]
    return {file.name: _tail(file) for file in wanted if file.is_file()}


def _tail(file: Path) -> str:
    """Return the last lines of a text file, however long it is."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _TAIL_BYTES))
        text = opened.read().decode("utf-8", errors="replace")
    lines = clean(redact(text)).splitlines()
    left_out = ["..."] if size > _TAIL_BYTES or len(lines) > _TAIL_LINES else []
    return "\n".join([*left_out, *lines[-_TAIL_LINES:]])


def _paths(found: Trial) -> TrialPaths | None:
    """Return the trial's paths; None where its study's name could lead out of the home."""
    try:
        return Home.current().study(valid_name(found.study)).trial(found.number)
    except ValueError:
        return None


def initial(found: Trial) -> int | None:
    """Return the trial whose weights it began from; None where it began at the base, or its files are gone.

    Raises:
        RegistryError: If its specification is damaged.
    """
    return None if _paths(found) is None else initial_trial(Home.current(), found.study, found.number)


def clone_command(found: Trial) -> str:
    """Return the command that runs the same configuration as a new trial of its study, from the same weights."""
    begun_from = initial(found)
    if begun_from is None:
        return clean(shlex.join(["sweeper", "clone", found.study, str(found.number)]))
    space = space_of_study(found.of.record)
    before, after = (values_of(space, found.of.trials[of].parameters) for of in (begun_from, found.number))
    values = [f"{name}={_written(after[name])}" for name in differing(space, before, after) if name in after]
    return clean(shlex.join(["sweeper", "clone", found.study, str(begun_from), *values, "--from-weights"]))


def _written(value: Any) -> str:
    """Return a value as the command line reads it: a plain word as it is, anything else as JSON."""
    plain = isinstance(value, str) and value.isidentifier() and value not in ("null", "true", "false")
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def export_command(found: Trial) -> str | None:
    """Return the command that writes a recipe for TRL; None where nothing was registered from the trial."""
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
        StudyStateError: If the trial's files are gone, or of another version of sweeper.
    """
    if _paths(found) is None:
        raise StudyStateError(f"the files of study {found.study!r} cannot be found by its name")
    with home.database() as database:
        return study_file_of(Home.current(), database, found.study, found.number)
