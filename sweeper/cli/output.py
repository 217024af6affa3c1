"""Output of every command: consoles, tables, JSON, and errors as one clear message."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import TyperException

from sweeper.errors import SweeperError, UserError
from sweeper.redact import clean, redact

DEBUG = "SWEEPER_DEBUG"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
"""The option of every command that prints something to look at."""

_PIPED_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present standard output (or error): plain and wide when piped; ``NO_COLOR`` is obeyed."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Console(file=stream, highlight=False, emoji=False, width=width)  # ":100:" is a line, not an emoji


def say(text: str = "", *, stderr: bool = False) -> None:
    """Print a line of markup; put ``safe`` around whatever a user, a model or a database wrote."""
    console(stderr=stderr).print(text, soft_wrap=True)


def safe(text: object) -> str:
    """Return text that can stand in rich markup: cleaned, its brackets taken literally."""
    return escape(clean(text))


_OF_THE_FILE_SYSTEM = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR}
    | {errno.EISDIR, errno.ELOOP}
)
"""System errors that the user can fix, wherever they come up; a missing file is not one of them."""

_LONGEST_ERROR = 20_000
"""Characters of an error that are shown: it may quote input of any length."""

_FIX = "choose another path, fix the permissions, or free some disk space"

_WHOLE = 24
"""Longest first column, in characters, that is never wrapped."""


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> Table:
    """Return a table of plain values, all made safe; columns whose name ends in ``>`` are right-aligned.

    The first column, which tells the rows apart, is not wrapped unless it is long itself.
    """
    found = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    cells = [["" if value is None else safe(value) for value in row] for row in rows]
    short = max((len(first) for first, *_ in cells), default=0) <= _WHOLE
    for column in columns:
        justify: JustifyMethod = "right" if column.endswith(">") else "left"
        whole = short and not found.columns
        found.add_column(column.rstrip(">"), justify=justify, overflow="fold", no_wrap=whole)
    for row in cells:
        found.add_row(*row)
    return found


def number(value: float | None, form: str = ".4g") -> str:
    """Return a number as a table shows it; nothing for None."""
    return "" if value is None else format(value, form)


def span(low: float | None, high: float | None, form: str = ".3f") -> str:
    """Return an interval as a table shows it; nothing for None."""
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"


@contextmanager
def progress() -> Iterator[Callable[[str, float | None], None]]:
    """Give a function that shows progress on standard error: bars on a terminal, else one line per stage."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        told: set[str] = set()

        def tell(stage: str, fraction: float | None) -> None:
            if stage not in told:
                told.add(stage)
                say(safe(stage), stderr=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, fraction: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(safe(stage), total=None if fraction is None else 1.0)
            bars.update(tasks[stage], completed=fraction or 0.0)

        yield show


def emit_json(value: object) -> None:
    """Print a value as JSON: NaN and infinity are null, times are ISO 8601, dataclasses and models are objects."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def emit_json_list(values: Iterable[object]) -> None:
    """Print many values as one JSON list, one per line, without holding them all in memory."""
    between = "["
    for value in values:
        sys.stdout.write(f"{between}\n{json.dumps(plain(value), allow_nan=False)}")
        between = ","
    sys.stdout.write("[]\n" if between == "[" else "\n]\n")


def plain(value: object) -> Any:
    """Return a value in types that JSON has."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def fail(error: SweeperError) -> NoReturn:
    """Print an error on standard error, and exit with its code."""
    text = redact(str(error))
    left_out = f" ... [{len(text) - _LONGEST_ERROR:,} characters left out]" if len(text) > _LONGEST_ERROR else ""
    say(f"[bold red]error:[/] {safe(text[:_LONGEST_ERROR] + left_out)}", stderr=True)
    raise typer.Exit(error.exit_code)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a message about ``path``.

    Raises:
        UserError: If ``path`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another path") from error


@contextmanager
def handled() -> Iterator[None]:
    """Turn whatever the block raises into one message and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, TyperException):
        raise
    except SweeperError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        fail(error)
    except KeyboardInterrupt as error:
        say("stopped", stderr=True)
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader is gone, as with `| head`; the interpreter flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno not in _OF_THE_FILE_SYSTEM:
            _bug(error)
        fail(UserError(f"{error.filename or 'a file'} cannot be used: {error.strerror}; {_FIX}"))
    except Exception as error:
        _bug(error)


def _bug(error: Exception) -> NoReturn:
    """Report a bug of sweeper's, and where its traceback is."""
    name = safe(redact(f"{type(error).__name__}: {error}")[:500])
    if os.environ.get(DEBUG):
        traceback.print_exc()
        where = "the traceback is above"
    else:
        where = f"the traceback is in {safe(_keep_traceback())}; --debug shows it"
    say(f"[bold red]this is a bug in sweeper:[/] {name}\n{where}", stderr=True)
    raise typer.Exit(1) from error


def _keep_traceback() -> Path:
    handle, name = tempfile.mkstemp(prefix="sweeper-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(redact(traceback.format_exc()))
    return Path(name)
