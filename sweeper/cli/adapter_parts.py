"""What the commands of ``sweeper adapters`` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database

Name = Annotated[str, typer.Argument(help="Name of the adapter.", show_default=False)]
Version = Annotated[int, typer.Argument(min=1, help="Its version.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@contextmanager
def opened() -> Iterator[tuple[Home, Database, Registry]]:
    """Open the present home's registry."""
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        yield home, database, Registry(home, database)


def number(value: float | None) -> str:
    """Return a score as a table shows it."""
    return "" if value is None else f"{value:.3f}"


def span(low: float | None, high: float | None) -> str:
    """Return an interval as a table shows it."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
