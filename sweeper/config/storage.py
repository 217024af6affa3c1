"""Storage settings: the home's own database file, or a PostgreSQL server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, PlainSerializer, SerializationInfo, Tag, WithJsonSchema

from sweeper.config.base import Frozen, kind_of
from sweeper.database_url import PostgresUrl
from sweeper.errors import DatabaseError


def _server(value: Any) -> Any:
    """Return the server that a URL names; what is wrong with it is said without repeating it."""
    if isinstance(value, PostgresUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a URL: postgresql+psycopg://USER@HOST:PORT/DATABASE")
    try:
        return PostgresUrl.parse(value)
    except DatabaseError as error:
        raise ValueError(str(error)) from None


def _written(server: PostgresUrl, info: SerializationInfo) -> PostgresUrl | str:
    """Return a URL without its password for whatever is written to a file or a database."""
    return str(server) if info.mode == "json" else server


Url = Annotated[
    PostgresUrl,
    BeforeValidator(_server),
    PlainSerializer(_written),
    WithJsonSchema({"type": "string"}),
]


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
    Annotated[SqliteStorage, Tag("sqlite")] | Annotated[PostgresStorage, Tag("postgresql")],
    Discriminator(kind_of),
    BeforeValidator(_url_is_server),
]
