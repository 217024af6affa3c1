"""Storage settings: the database, and the adapters kept on disk."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, SerializationInfo, WithJsonSchema

from sweeper.config.base import Frozen
from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError


def _server(value: Any) -> Any:
    """Return the server of a URL; faults are described without repeating the URL, which may hold a password."""
    if isinstance(value, PostgresUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a URL: postgresql+psycopg://USER@HOST:PORT/DATABASE")
    try:
        return PostgresUrl.parse(value)
    except DatabaseError as error:
        raise ValueError(str(error)) from None


def _written(server: PostgresUrl, info: SerializationInfo) -> PostgresUrl | str:
    """Return a URL, without its password if it is to be written to a file or a database."""
    return str(server) if info.mode == "json" else server


Url = Annotated[PostgresUrl, BeforeValidator(_server), PlainSerializer(_written), WithJsonSchema({"type": "string"})]


class SqliteStorage(Frozen):
    """The SQLite file ``sweeper.db`` in ``SWEEPER_HOME``."""

    kind: Literal["sqlite"] = "sqlite"


class PostgresStorage(Frozen):
    """A database of a PostgreSQL server.

    Attributes:
        url: ``postgresql+psycopg://USER@HOST:PORT/DATABASE``; it may refer to environment variables, as ``${NAME}``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["postgresql"] = "postgresql"
    url: Url


def _url_is_server(value: Any) -> Any:
    """``storage: URL`` means ``storage: {kind: postgresql, url: URL}``, and ``storage: sqlite`` its kind."""
    if isinstance(value, dict) and "url" in value:
        return {"kind": "postgresql", **value}
    if not isinstance(value, str):
        return value
    return {"kind": "sqlite"} if value == "sqlite" else {"kind": "postgresql", "url": value}


Storage = Annotated[
    SqliteStorage | PostgresStorage,
    Field(discriminator="kind"),
    BeforeValidator(_url_is_server),
]

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*$", re.IGNORECASE)
_POWERS = " KMGT"


def size_bytes(value: Any) -> Any:
    """Return ``5368709120``, ``"5GiB"`` (1024 x 1024 x 1024 each) or ``"5GB"`` (a thousand million each) in bytes.

    Raises:
        ValueError: If the text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError(f"must be a size such as 500MB, 5GiB or 1.5TB; found {value!r}")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** _POWERS.index(match[2].upper() or " "))


def size_text(size: int) -> str:
    """Return a size for people, for example ``1.5 GiB``."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{size} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


class KeepConfig(Frozen):
    """Retention of the trials' adapters; registered ones, and those the study still needs, are always kept.

    Attributes:
        best: Number of the best configurations to keep, but never fewer than are scored on the test split; with
            several objectives the Pareto front. ``all`` keeps every one.
        quota: Most bytes of the study's adapters and stopped trials, or text such as ``5GiB``. Above it the worst are
            deleted first, down to those that the final scoring needs.
    """

    best: Annotated[int, Field(ge=1)] | Literal["all"] = 3
    quota: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(size_bytes)] = None

    def __str__(self) -> str:
        quota = "" if self.quota is None else f", quota {size_text(self.quota)}"
        return f"best {self.best}{quota}"
