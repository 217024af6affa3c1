"""Database addresses: the path of an SQLite file, or the URL of a database on a PostgreSQL server.

A URL may refer to environment variables, as in ``${PGPASSWORD}``. They are looked up when connecting, and stay as they
are wherever the URL is stored or shown. A password in clear is shown as ``***``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import URL

HIDDEN = "***"
"""Shown in place of a password."""

_DRIVER = "postgresql+psycopg"
_SCHEMES = frozenset({_DRIVER, "postgresql", "postgres"})
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_PARAMETERS = frozenset({"password", "sslpassword"})
_FORM = "write it as postgresql+psycopg://USER@HOST:PORT/DATABASE"
_SHORTEST_HIDDEN = 4
"""Shorter passwords are words or digits that any text may hold; they are hidden only inside the URL."""


class PostgresUrl:
    """A database of a PostgreSQL server, as an immutable value. Neither ``str`` nor ``repr`` ever shows its password.

    (Not a dataclass: pydantic would dump its fields.)

    Attributes:
        written: The URL as a person wrote it, references unexpanded. A secret: it may hold a password.
    """

    def __init__(self, written: str) -> None:
        self.written = written

    def __eq__(self, other: object) -> bool:
        return self.written == other.written if isinstance(other, PostgresUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.written)

    @classmethod
    def parse(cls, text: str) -> PostgresUrl:
        """Return the database that a URL names.

        Raises:
            DatabaseError: If it is not the URL of a PostgreSQL database; the text does not quote it.
        """
        server = cls(text.strip())
        if not _REFERENCE.fullmatch(server.written):
            server._parts()
        return server

    @property
    def url(self) -> URL:
        """Return the URL to connect to, references expanded. A secret.

        Raises:
            DatabaseError: If a variable is not set.
        """
        if _REFERENCE.fullmatch(self.written):
            return PostgresUrl.parse(_expanded(self.written))._parts()
        parts = self._parts()
        query = {key: _each(value, _expanded) for key, value in parts.query.items()}
        return parts.set(
            username=_found(parts.username),
            password=_found(parts.password),
            host=_found(parts.host),
            database=_found(parts.database),
            query=query,
        )

    @property
    def identity(self) -> tuple[object, ...]:
        """Return what identifies this database, whichever user connects to it; two URLs may name the same."""
        url = self.url
        schema = tuple(sorted((k, str(v)) for k, v in url.query.items() if k in ("options", "search_path")))
        return url.host or url.query.get("host"), url.port or 5432, url.database or url.username, schema

    def hide(self, text: str) -> str:
        """Return ``text`` without the password of this URL."""
        text = text.replace(self.written, str(self))
        for secret in self._secrets():
            text = text.replace(secret, HIDDEN)
        return text

    @property
    def has_password(self) -> bool:
        """Whether a password is written in the URL in clear."""
        return str(self) != self.written and HIDDEN in str(self)

    def _secrets(self) -> list[str]:
        """Return the passwords in clear, as written and as decoded, including those from variables."""
        from urllib.parse import quote

        urls = []
        with suppress(DatabaseError):  # a variable that is not set hides nothing
            urls.append(self.url)
        if not _REFERENCE.fullmatch(self.written):
            urls.append(self._parts())
        found = [url.password for url in urls] + [url.query.get(key) for url in urls for key in _SECRET_PARAMETERS]
        plain = {str(value) for value in found if value and not _REFERENCE.fullmatch(str(value))}
        raw = re.search(r"://[^:/]*:([^@]*)@", self.written)
        if raw and not _REFERENCE.fullmatch(raw[1]):
            plain.add(raw[1])
        spellings = plain | {quote(value, safe="") for value in plain} | {quote(value) for value in plain}
        return sorted((value for value in spellings if len(value) >= _SHORTEST_HIDDEN), key=len, reverse=True)

    def _parts(self) -> URL:
        """Return the parsed URL, references unexpanded."""
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.written)
        except (ArgumentError, ValueError):
            raise DatabaseError(f"the database URL cannot be read: {_FORM}") from None
        if url.drivername not in _SCHEMES:
            raise DatabaseError(f"databases of kind {url.drivername} are not supported: {_FORM}, or sqlite")
        if "@" in (url.host or ""):
            raise DatabaseError(
                "the database URL has several '@': write one inside a password as %40, or use ${PGPASSWORD}"
            )
        return url.set(drivername=_DRIVER)

    def __str__(self) -> str:
        """Return the URL as it may be shown."""
        if _REFERENCE.fullmatch(self.written):
            return self.written
        url = self._parts()
        query = {key: HIDDEN if key in _SECRET_PARAMETERS else value for key, value in url.query.items()}
        shown = url.set(query=query)
        if url.password and not _REFERENCE.fullmatch(str(url.password)):
            shown = shown.set(password=HIDDEN)
        return _readable(shown.render_as_string(hide_password=False))

    def __repr__(self) -> str:
        return f"PostgresUrl({str(self)!r})"


Address = Path | PostgresUrl
"""A database: an SQLite file, or one of a PostgreSQL server."""


def _readable(url: str) -> str:
    """Return a rendered URL with its references and its ``***`` as they were written."""
    url = re.sub(r"%24%7B([A-Za-z_][A-Za-z0-9_]*)%7D", r"${\1}", url)
    return url.replace("%2A%2A%2A", HIDDEN)


def _each(value: Any, change: Any) -> Any:
    return tuple(change(item) for item in value) if isinstance(value, tuple) else change(value)


def _found(part: object) -> str | None:
    return None if part is None else _expanded(str(part))


def _expanded(text: str) -> str:
    def value(reference: re.Match[str]) -> str:
        found = os.environ.get(reference[1])
        if found is None:
            raise DatabaseError(
                f"the database URL refers to the environment variable {reference[1]}, which is not set: set it"
            )
        return found

    return _REFERENCE.sub(value, text)
