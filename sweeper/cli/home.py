"""The home that a command works on, and the arguments that name things in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.store import Database

StudyName = Annotated[str, typer.Argument(help="Name of the study; `sweeper status` lists them.", show_default=False)]
AdapterName = Annotated[
    str, typer.Argument(help="Name of the adapter; `sweeper adapters list` lists them.", show_default=False)
]
Version = Annotated[int, typer.Argument(min=1, help="Version number.", show_default=False)]


@contextmanager
def opened_database() -> Iterator[Database]:
    """Open the database of the current home, which must exist."""
    with Database.open(Home.current().database, create=False) as database:
        yield database


@contextmanager
def opened_registry() -> Iterator[tuple[Home, Database, Registry]]:
    """Open the current home's database and registry."""
    home = Home.current()
    with Database.open(home.database, create=False) as database:
        yield home, database, Registry(home, database)
