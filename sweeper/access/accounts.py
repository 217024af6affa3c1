"""The users of a home's dashboard, kept in one file."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sweeper.access.files import locked, read_private
from sweeper.access.passwords import hashed, matches
from sweeper.errors import AccessError
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home

Role = Literal["viewer", "editor"]
"""Viewers see everything and change nothing."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}")
_EMAIL = re.compile(r"[^@]+@[^@]+")


class Account(BaseModel):
    """A user of the dashboard.

    Attributes:
        name: Recorded with everything they change; the e-mail address of a user who signs in by OIDC.
        role: Viewers look; editors also change things.
        password_hash: Argon2id; None for a user who signs in by OIDC.
        stamp: Random and new with every password, which ends earlier sessions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    role: Role
    password_hash: str | None
    stamp: str

    @property
    def by_oidc(self) -> bool:
        """Whether they sign in by OIDC."""
        return self.password_hash is None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    users: list[Account] = []


class Accounts:
    """The users of a home; every call reads the file, so a change takes effect at once."""

    def __init__(self, home: Home) -> None:
        self._path = home.dashboard_users

    def all(self) -> list[Account]:
        """Return every user, by name.

        Raises:
            AccessError: If sweeper did not write the file, or others can read it.
        """
        text = read_private(self._path)
        if text is None:
            return []
        try:
            return sorted(_File.model_validate_json(text).users, key=lambda account: account.name.casefold())
        except ValidationError:
            # The cause would show hashes.
            raise AccessError(f"{self._path} is not what `sweeper users` wrote; restore it, or delete it") from None

    def find(self, name: str) -> Account | None:
        """Return a user by name, ignoring case."""
        return next((found for found in self.all() if found.name.casefold() == name.casefold()), None)

    def check_new(self, name: str, *, oidc: bool) -> None:
        """Refuse a name that cannot be added.

        Raises:
            AccessError: With why.
        """
        if not _NAME.fullmatch(name):
            raise AccessError(
                f"{name!r} cannot be a user's name: 1 to 128 letters of the English alphabet, digits and . _ + - @, "
                "beginning with a letter or digit"
            )
        if oidc and not _EMAIL.fullmatch(name):
            raise AccessError(f"{name!r} is not an e-mail address, which identifies a user who signs in by OIDC")
        if self.find(name):
            raise AccessError(f"user {name} exists already; `sweeper users remove {name}` first, or `users password`")

    def add(self, name: str, role: Role, password: str | None) -> None:
        """Add a user; one without a password signs in by OIDC."""
        kept = None if password is None else hashed(password, name)
        with self._changing() as users:
            self.check_new(name, oidc=password is None)
            users.append(Account(name=name, role=role, password_hash=kept, stamp=_stamp()))

    def remove(self, name: str) -> None:
        """Remove a user, and end their sessions."""
        with self._changing() as users:
            users.remove(self._known(name))

    def set_password(self, name: str, password: str) -> None:
        """Change a user's password, and end the sessions begun with the former one."""
        kept = hashed(password, name)
        with self._changing() as users:
            before = self.with_password(name)
            users[users.index(before)] = before.model_copy(update={"password_hash": kept, "stamp": _stamp()})

    def with_password(self, name: str) -> Account:
        """Return a user who has a password.

        Raises:
            AccessError: If there is none of that name, or they sign in by OIDC.
        """
        found = self._known(name)
        if found.by_oidc:
            raise AccessError(f"{found.name} signs in by OIDC and has no password here")
        return found

    def verify(self, name: str, password: str) -> Account | None:
        """Return the user with this name and password; a wrong name takes as long as a wrong password."""
        found = self.find(name)
        return found if matches(password, found.password_hash if found else None) else None

    def _known(self, name: str) -> Account:
        found = self.find(name)
        if found is None:
            raise AccessError(f"there is no user {name!r}; `sweeper users list` shows all users")
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Account]]:
        """Yield the users to change, in one process at a time."""
        with locked(self._path):
            users = self.all()
            yield users
            kept = _File(users=users).model_dump(mode="json")
            write_atomically(self._path, json.dumps(kept, indent=2) + "\n", private=True)


def _stamp() -> str:
    return secrets.token_hex(16)
