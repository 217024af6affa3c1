"""Sign-in by OIDC: Streamlit's ``st.login`` routes talk to the provider, and their result starts a session.

Streamlit would keep the provider's claims in cookies for 30 days, and run pages to find out who is signed in. Its
cookies are removed from its answer here, so there is one kind of session, for users added with
``sweeper users add --oidc``.
"""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config
from streamlit.auth_util import encode_provider_token, get_cookie_with_chunks
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from sweeper_dashboard.access import addresses, pages
from sweeper_dashboard.access.sessions import begun
from sweeper_dashboard.data import access

CALLBACK = "/oauth2callback"
FAILED = f"{addresses.LOGIN}?failed=oidc"
_NEXT_LASTS_S = 600


async def begin(request: Request) -> Response:
    """Send the browser to the provider by Streamlit's route."""
    answer = RedirectResponse(f"{addresses.STREAMLITS_LOGIN}?provider={encode_provider_token('default')}", 303)
    onward = addresses.local(request.query_params.get("next", "/"))
    answer.set_cookie(_next_cookie(), onward, max_age=_NEXT_LASTS_S, httponly=True, samesite="lax", path=CALLBACK)
    return answer


def callback(app: ASGIApp) -> ASGIApp:
    """Return Streamlit's callback, with its answer replaced by a session, or by a page that says why there is none."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        said: list[tuple[bytes, bytes]] = []

        async def hear(message: Message) -> None:
            said.extend(message.get("headers", ()))

        await app(scope, receive, hear)
        answer = _entered(Request(scope), _claims(said))
        streamlits = USER_COOKIE_NAME.encode()
        answer.raw_headers += [(n, v) for n, v in said if n == b"set-cookie" and not v.startswith(streamlits)]
        await answer(scope, receive, send)

    return answered


def _entered(request: Request, claims: dict[str, Any]) -> Response:
    email = str(claims.get("email", ""))
    if not claims:
        return RedirectResponse(FAILED, 303)
    account = access.accounts().find(email)
    if claims.get("email_verified") not in (True, "true"):
        return _refused(f"The provider has not verified the address {email or '(none)'} as yours.")
    if account is None or not account.by_oidc:
        return _refused(f"You are signed in as {email}, which has no access to this dashboard.")
    answer = pages.onward(addresses.local(request.cookies.get(_next_cookie(), "/")))
    return begun(answer, account, request)


def _refused(why: str) -> Response:
    ask = "Ask the administrator to add you with `sweeper users add E-MAIL --oidc`."
    return pages.notice("No access", why, ask, status=403, link=(addresses.LOGIN, "Use another account"))


def _claims(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return the provider's claims from the cookies that Streamlit has just signed."""
    cookies = SimpleCookie()
    for name, value in headers:
        if name == b"set-cookie":
            cookies.load(value.decode("latin-1"))

    def signed(name: str) -> bytes | None:
        found = cookies.get(name)
        return decode_signed_value(get_cookie_secret(), name, found.value.encode("latin-1")) if found else None

    said = get_cookie_with_chunks(signed, USER_COOKIE_NAME)
    return dict(json.loads(said)) if said else {}


def _next_cookie() -> str:
    return f"sweeper-next-{config.get_option('server.port')}"
