"""Sessions: signed cookies that name a user, valid for half a day, or until the user's password changes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from typing import cast

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import HTTPConnection
from starlette.responses import Response
from streamlit import config

from sweeper_dashboard.data import access

LASTS_S = 12 * 60 * 60


class Sessions:
    """The sessions of this process.

    Attributes:
        always: Whether sign-in is required even without users, so that removing the last one opens nothing.
    """

    def __init__(self) -> None:
        self.always = False
        self._ended: set[str] = set()

    def are_needed(self) -> bool:
        """Return whether sign-in is required.

        Raises:
            AccessError: If the file of users cannot be read.
        """
        return self.always or bool(access.accounts().all())

    def begin(self, account: access.Account) -> str:
        """Return the cookie of a new session."""
        return _signer().dumps([account.name, account.stamp, secrets.token_hex(8)])

    def whose(self, cookies: Mapping[str, str]) -> access.Account | None:
        """Return the user of the session in the cookies, if it is valid."""
        token = cookies.get(cookie_name(), "")
        try:
            name, stamp, number = cast(list[str], _signer().loads(token, max_age=LASTS_S))
        except BadData:
            return None
        found = None if number in self._ended else access.accounts().find(name)
        return found if found and found.stamp == stamp else None

    def end(self, cookies: Mapping[str, str]) -> None:
        """End the session in the cookies, also for copies of them."""
        if self.whose(cookies):
            self._ended.add(_signer().loads(cookies[cookie_name()])[2])


@cache
def sessions() -> Sessions:
    """Return the sessions of this process."""
    return Sessions()


def cookie_name() -> str:
    """Return the cookie's name, which contains the port because cookies are shared between ports."""
    return f"sweeper-session-{config.get_option('server.port')}"


def begun(answer: Response, account: access.Account, request: HTTPConnection) -> Response:
    """Return an answer with the cookie of a new session."""
    secure = request.url.scheme == "https"
    token = sessions().begin(account)
    answer.set_cookie(cookie_name(), token, max_age=LASTS_S, path="/", httponly=True, samesite="strict", secure=secure)
    return answer


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(access.signing_key(), salt="sweeper dashboard session")
