"""Addresses within the dashboard, and the origin of requests."""

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
    """Return an address if it is a page of this dashboard, otherwise the first page's."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    spelled_oddly = "\\" in address or not address.isascii() or not address.isprintable() or " " in address
    leads_away = parts.scheme or parts.netloc or not address.startswith("/") or address.startswith("//")
    return "/" if spelled_oddly or leads_away or parts.path.startswith((LOGIN, LOGOUT, "/auth/")) else address


def asked_for(connection: HTTPConnection) -> str:
    """Return the requested address, safe to redirect to."""
    query = connection.scope["query_string"].decode("latin-1")
    return local(quote(connection.scope["path"]) + (f"?{query}" if query else ""))


def is_foreign(connection: HTTPConnection) -> bool:
    """Return whether a request is for another host, or comes from another host's page.

    Stricter than Streamlit, which accepts pages from every port of this machine.
    """
    host, origin = connection.headers.get("host"), connection.headers.get("origin")
    if not is_host_allowed(host):
        return True
    if origin is not None:
        return urlsplit(origin).netloc != host
    changes_something = connection.scope.get("method", "GET") not in _SAFE_METHODS
    return changes_something and connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def is_navigation(connection: HTTPConnection) -> bool:
    """Return whether a user is opening a page, which a page should answer."""
    wants = connection.headers.get("accept", "")
    return connection.scope.get("method") in ("GET", "HEAD") and "text/html" in wants


def led_here_by_others(connection: HTTPConnection) -> bool:
    """Return whether a link on another site was followed; browsers then send no strict cookies."""
    return connection.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def to_login(onward: str) -> str:
    """Return the address of the sign-in page that continues to another page."""
    return LOGIN if onward == "/" else f"{LOGIN}?next={quote(onward, safe='')}"
