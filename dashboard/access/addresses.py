"""Addresses: which lead on within the dashboard, and which requests come from its own pages."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from starlette.requests import HTTPConnection
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

LOGIN = "/login"
LOGOUT = "/logout"
LOGIN_OIDC = "/login/oidc"
STREAMLITS_LOGIN = "/auth/login"

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def local(address: str) -> str:
    """Return an address if it is a page of this dashboard, else that of the first page."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    spelled_oddly = "\\" in address or not address.isascii() or not address.isprintable() or " " in address
    leads_away = parts.scheme or parts.netloc or not address.startswith("/") or address.startswith("//")
    return "/" if spelled_oddly or leads_away or parts.path.startswith((LOGIN, LOGOUT, "/auth/")) else address


def asked_for(connection: HTTPConnection) -> str:
    """Return the address that was asked for, safe to be sent back to."""
    query = connection.scope["query_string"].decode("latin-1")
    return local(quote(connection.scope["path"]) + (f"?{query}" if query else ""))


def is_foreign(connection: HTTPConnection) -> bool:
    """Tell whether a request is for another host, or comes from a page of one.

    Stricter than Streamlit, which lets pages of every port of this machine in.
    """
    host, origin = connection.headers.get("host"), connection.headers.get("origin")
    if not is_host_allowed(host):
        return True
    if origin is not None:
        return urlsplit(origin).netloc != host
    changes_something = connection.scope.get("method", "GET") not in _SAFE_METHODS
    return changes_something and connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def is_navigation(connection: HTTPConnection) -> bool:
    """Tell whether a person opens a page, so that a page is the right answer."""
    wants = connection.headers.get("accept", "")
    return connection.scope.get("method") in ("GET", "HEAD") and "text/html" in wants


def led_here_by_others(connection: HTTPConnection) -> bool:
    """Tell whether a link on another site's page was followed; strict cookies are not sent then."""
    return connection.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def to_login(onward: str) -> str:
    """Return the address of the page to sign in at, which leads on to another."""
    return LOGIN if onward == "/" else f"{LOGIN}?next={quote(onward, safe='')}"
