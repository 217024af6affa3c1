"""``sweeper init``: writes a commented study file for the user's data, and checks it first."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.cli.examples import write_examples
from sweeper.cli.output import safe, say, writing
from sweeper.config.data import DataConfig
from sweeper.config.evaluation import LOSSES, TASK_METRICS
from sweeper.config.loader import StudyFile, validate
from sweeper.config.model import ModelConfig
from sweeper.config.study import valid_name
from sweeper.config.yaml_source import parse
from sweeper.data.formats import convert, kind_of
from sweeper.data.read import read_rows
from sweeper.data.rendering import lengths
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import UserError
from sweeper.files.atomic import write_atomically
from sweeper.models.resolve import resolve
from sweeper.study.resolve import resolve_study

_MODEL = "smollm2-135m"
_SHORT_ANSWER = 60  # characters; a shorter answer is right or wrong as a whole
_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
_COUNTED = 1000  # rows whose tokens are counted for max_length
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")

_TEMPLATE = """\
# A study for sweeper. `sweeper check {file}` shows what it will do, `sweeper run {file}` runs it.
name: {name}

# A name of `sweeper models list`, a Hub name (owner/name) or a local folder (./path).
model: {model}

data:
  # JSONL, JSON, CSV or Parquet; paths start at this file's folder. Found here: {found}.
{data}
technique:
  kind: sft
  max_length: {max_length}  # tokens of prompt and completion together; {length_note}

adapter:
  kind: qlora  # lora: the same without quantising the base model; faster if memory allows

search:
  preset: recommended  # ranges by model, data and adapter, with sources; `sweeper check` prints them
  n_trials: {trials}
  # timeout: 2h  # no new trial starts after this long
  # space:  # overrides the preset
  #   learning_rate: {{low: 1e-4, high: 2e-3, log: true}}
  #   lora_rank: [8, 16, 32]
  #   epochs: 2

evaluation:
  metric: eval_loss  # decides between trials during the search, on the validation split
  metrics: [{metrics}]  # scored on the test split at the end; the first decides
  # promotion_margin: 0.01  # least certain gain over the version in production; 0 by default

seed: 0
"""


def init(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(help="With --example: the folder to copy to; studies by default.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Copy the example studies and their data; overwrites nothing.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Training data: a file, a folder or a Hub data set.")] = None,
    validation: Annotated[
        str | None, typer.Option(help="Validation data; cut from the training data by default.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Test data; cut from the training data by default.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A renamed column, such as prompt=question; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"Base model; {_MODEL} by default.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric that decides the final comparison.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study; that of the data by default.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("study.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask no questions; use options and defaults.")] = False,
) -> None:
    """Write a commented study file for your data.

    On a terminal it asks for what the options leave open, and fills in the rest from the data.
    """
    if example:
        _refuse_with_example(context)
        write_examples(folder or Path("studies"))
        return
    if folder is not None:
        raise UserError(f"{folder}: only --example takes a folder; pass your data with --data")
    with writing(out):
        taken = out.exists()
    if taken and not force:
        raise UserError(f"{out} already exists; choose another file with --out, or overwrite it with --force")
    ask = not yes and sys.stdin.isatty()
    data = data or (typer.prompt("Training data (file, folder or Hub data set)") if ask else None)
    if data is None:
        raise UserError("--data is missing: pass the file with your training data")
    model = model or (typer.prompt("Base model", default=_MODEL) if ask else _MODEL)
    name = name or _name_from(data)
    named = {"train": data, "validation": validation, "test": test}
    sources = {split: source for split, source in named.items() if source}
    text = study_text(name, model, sources, _columns(column or []), metric, trials, out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)  # relative paths start there
    study = resolve_study(StudyFile(validate(parse(str(out), text)), out, text))
    with writing(out):
        write_atomically(out, text)
    rows = ", ".join(f"{split} {len(getattr(study.splits, split)):,}" for split in named)
    say(f"{safe(out)} written: study {safe(name)}, {rows} rows, model {safe(model)}")
    say(f"next: sweeper check {safe(out)}, then sweeper run {safe(out)}")


def _refuse_with_example(context: typer.Context) -> None:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    others = [f"--{name}" for name in given if name not in ("example", "folder")]
    if others:
        raise UserError(f"--example takes only a folder, not {', '.join(others)}")


def study_text(
    name: str, model: str, sources: dict[str, str], columns: dict[str, str], metric: str | None, trials: int, out: Path
) -> str:
    """Return a commented study file that fits the data.

    Args:
        name: Of the study.
        model: The base model.
        sources: ``train``, ``validation`` and ``test`` as the user names them; missing ones are cut from train.
        columns: sweeper's column names to those of the file.
        metric: Metric that decides the final comparison; None for one that fits the answers.
        trials: Number of trials.
        out: The study file; its paths are relative to its folder.

    Raises:
        UserError: If the data cannot be used, or a name or metric is not allowed.
    """
    try:
        valid_name(name)
    except ValueError as error:
        raise UserError(f"--name: {error}") from error
    if metric is not None and metric not in (known := (*TASK_METRICS, *LOSSES)):
        raise UserError(f"--metric {metric!r}: must be one of {', '.join(known)}")
    train = sources["train"]
    raw = read_rows(train, Path.cwd())
    rows = convert(raw, DataConfig(train=(train,), columns=columns), train)
    max_length, length_note = _max_length(model, rows)
    lines = [f"  {split}: {_quoted(_from(out, path))}\n" for split, path in sources.items()]
    lines += [
        f"  # {split}: my-{split}.jsonl  # by default a tenth of train, chosen by content\n"
        for split in ("validation", "test")
        if split not in sources
    ]
    lines += ["  columns:\n"] if columns else []
    lines += [f"    {_quoted(wanted)}: {_quoted(column)}\n" for wanted, column in columns.items()]
    local = model.startswith((".", "~", os.sep)) or Path(model).is_dir()
    return _TEMPLATE.format(
        file=out.name if _PLAIN.fullmatch(out.name) else "FILE",
        name=_quoted(name),
        model=_quoted(_from(out, os.path.expanduser(model), mark=True) if local else model),
        found=f"{len(raw):,} rows of {kind_of(rows[0]).replace('_', ' and ')}",
        data="".join(lines),
        max_length=max_length,
        length_note=length_note,
        trials=trials,
        metrics=", ".join(_metrics(metric, rows)),
    )


def _name_from(data: str) -> str:
    path = Path(data.partition(":")[0]).absolute()
    stem = path.parent.name if path.stem in ("train", "data") else path.stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60] or "study"


def _columns(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        wanted, sign, column = pair.partition("=")
        if not sign or not wanted or not column:
            raise UserError(f"--column {pair!r}: must be NAME=COLUMN, for example prompt=question")
        found[wanted] = column
    return found


def _max_length(model: str, rows: list[dict[str, Any]]) -> tuple[int, str]:
    """Return the smallest usual length that truncates no row, and the reason."""
    found = resolve(ModelConfig(name=model), Path.cwd(), fetch=False)
    if found.planned is not None or not (found.path / "tokenizer.json").is_file():
        return 1024, "longer rows are truncated"
    longest = max(lengths(rows[:_COUNTED], ModelTokenizer.load(found.path)))
    length = next((length for length in _LENGTHS if length >= longest), _LENGTHS[-1])
    return length, f"the longest row examined has {longest:,}"


def _metrics(metric: str | None, rows: list[dict[str, Any]]) -> list[str]:
    """Return the metrics that fit the answers, the wanted one first."""
    if kind_of(rows[0]) == "text":
        fitting = ["perplexity"]
    else:
        answers = [_answer(row) for row in rows[:_COUNTED]]
        if all(answer.lstrip().startswith(("{", "[")) for answer in answers):
            fitting = ["field_match", "json_validity", "exact_match"]
        elif sorted(map(len, answers))[len(answers) // 2] <= _SHORT_ANSWER:
            fitting = ["exact_match", "token_f1"]
        else:
            fitting = ["rougeL", "chrf", "token_f1"]
    return list(dict.fromkeys(([metric] if metric else []) + fitting))


def _answer(row: dict[str, Any]) -> str:
    completion: Any = row["completion"] if "completion" in row else row["messages"]
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _from(out: Path, source: str, *, mark: bool = False) -> str:
    """Return an existing path relative to the study file's folder; anything else unchanged."""
    name, colon, split = source.rpartition(":")
    path, suffix = (name, f":{split}") if colon and not Path(source).exists() else (source, "")
    if not Path(path).exists() or Path(path).is_absolute():
        return source
    relative = os.path.relpath(path, out.absolute().parent)
    return (f".{os.sep}" if mark and not relative.startswith(".") else "") + relative + suffix


def _quoted(text: str) -> str:
    """Return text as YAML: plain if it cannot be misread, else in double quotes."""
    plain = _PLAIN.fullmatch(text) and not re.fullmatch(r"[-+.\d]+([eE]\d+)?|true|false|null", text, re.IGNORECASE)
    return text if plain else json.dumps(text, ensure_ascii=False)
