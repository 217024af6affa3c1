"""The routes for signing in and out, open to everyone."""

from __future__ import annotations

import math
import secrets
from contextlib import suppress
from urllib.parse import parse_qs

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from streamlit import config

from sweeper_dashboard.access import addresses, oidc, pages
from sweeper_dashboard.access.attempts import Attempts
from sweeper_dashboard.access.sessions import begun, cookie_name, sessions
from sweeper_dashboard.data import access

_FORM_BYTES = 8192
_FORM_S = 10.0
_attempts = Attempts()
_hashing = anyio.CapacityLimiter(1)  # each check takes 64 MiB


def routes() -> list[Route]:
    """Return the routes."""
    return [
        Route(addresses.LOGIN, show_login, methods=["GET"]),
        Route(addresses.LOGIN, login, methods=["POST"]),
        Route(addresses.LOGIN_OIDC, oidc.begin, methods=["GET"]),
        Route(addresses.LOGOUT, show_logout, methods=["GET"]),
        Route(addresses.LOGOUT, logout, methods=["POST"]),
    ]


async def show_login(request: Request) -> Response:
    """Show the sign-in form, or continue if no sign-in is needed."""
    onward = addresses.local(request.query_params.get("next", "/"))
    if not sessions().are_needed() or sessions().whose(request.cookies):
        return RedirectResponse(onward, 303)
    failed = "The provider did not sign you in. Try again." if "failed" in request.query_params else ""
    return _form(request, onward, failed)


async def login(request: Request) -> Response:
    """Sign in by name and password."""
    form = await _fields(request)
    name, onward = form.get("name", ""), addresses.local(form.get("next", "/"))
    if not _is_our_form(request, form):
        return _form(request, onward, "The form has expired. Please try again.", 400, name)
    keys = (f"name {name.casefold()[:128]}", f"address {request.client.host if request.client else ''}")
    wait_s = math.ceil(_attempts.wait_s(*keys))
    if wait_s:
        refused = _form(request, onward, f"Too many attempts. Try again in {wait_s} seconds.", 429, name)
        refused.headers["Retry-After"] = str(wait_s)
        return refused
    _attempts.began(*keys)
    account = await run_sync(access.accounts().verify, name, form.get("password", ""), limiter=_hashing)
    if account is None:
        return _form(request, onward, "Wrong name or password.", 401, name)
    _attempts.succeeded(*keys)
    return begun(RedirectResponse(onward, 303), account, request)


async def show_logout(request: Request) -> Response:
    """Sign out, or ask first if another site's page led here."""
    if not addresses.led_here_by_others(request):
        return _signed_out(request)
    token = secrets.token_urlsafe()
    return _with_token(pages.page("Sign out?", pages.sign_out(token), form=True), token, request)


async def logout(request: Request) -> Response:
    """Sign out."""
    return _signed_out(request)


def _signed_out(request: Request) -> Response:
    sessions().end(request.cookies)
    answer = RedirectResponse(addresses.LOGIN, 303)
    answer.delete_cookie(cookie_name(), path="/", httponly=True, samesite="strict")
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def _form(request: Request, onward: str, bad: str = "", status: int = 200, name: str = "") -> Response:
    token, provider = secrets.token_urlsafe(), access.oidc_provider()
    body = pages.sign_in(
        onward,
        token,
        passwords=not all(account.by_oidc for account in access.accounts().all()),
        oidc_address=addresses.to_login(onward).replace(addresses.LOGIN, addresses.LOGIN_OIDC) if provider else None,
        provider=provider.host if provider else "",
        bad=bad,
        name=name,
    )
    return _with_token(pages.page("Sign in", body, status=status, form=True), token, request)


def _with_token(answer: Response, token: str, request: Request) -> Response:
    """Set the form's token as a cookie too, which pages of other sites can neither read nor set."""
    answer.set_cookie(_token_cookie(), token, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


def _is_our_form(request: Request, form: dict[str, str]) -> bool:
    given, due = form.get("token", ""), request.cookies.get(_token_cookie(), "")
    return bool(due) and secrets.compare_digest(given.encode(), due.encode())


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form; nothing if it is too large or too slow."""
    body, whole = b"", False
    with anyio.move_on_after(_FORM_S), suppress(ClientDisconnect):
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES:
                return {}
        whole = True
    if not whole:
        return {}
    found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


def _token_cookie() -> str:
    return f"sweeper-form-{config.get_option('server.port')}"
