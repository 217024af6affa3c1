"""The gate before Streamlit's pages, files, uploads and websocket, open to users who have signed in."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from sweeper_dashboard.access import addresses, oidc, pages
from sweeper_dashboard.access.sessions import sessions
from sweeper_dashboard.data import access

_POLICY_VIOLATION = 1008
_HEALTH = "/_stcore/health"
_AGENTS = "/_stcore/agent"
_OPEN = frozenset({addresses.LOGIN, addresses.LOGOUT})
_OPEN_FOR_OIDC = frozenset({addresses.LOGIN_OIDC, addresses.STREAMLITS_LOGIN, oidc.CALLBACK})
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Streamlit's pages contain inline scripts and styles; nothing is loaded from elsewhere.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Gate:
    """ASGI middleware around all of Streamlit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refused = _refused(connection)
        if scope["type"] == "websocket":
            if refused:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return
            watched = _Watched(connection, receive, send)
            await self._app(scope, watched.receive, watched.send)
            return
        app = refused or (oidc.callback(self._app) if scope["path"] == oidc.CALLBACK else self._app)
        await app(scope, receive, _guarded(send))


class _Watched:
    """A websocket that ends with the session, which is checked at every message from the browser."""

    def __init__(self, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        self._connection, self._receive, self._send = connection, receive, send
        self._closed = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "websocket.receive" or self._may_stay():
            return message
        leave = ForwardMsg()
        leave.auth_redirect.url = addresses.LOGIN
        await self.send({"type": "websocket.send", "bytes": leave.SerializeToString()})
        await self.send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        self._closed = True
        return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}

    def _may_stay(self) -> bool:
        try:
            return _may_enter(self._connection)
        except access.AccessError:
            return False  # the next page opened says why

    async def send(self, message: Message) -> None:
        if not self._closed:
            await self._send(message)


def _refused(connection: HTTPConnection) -> Response | None:
    """Return the answer to a request that is refused, or None."""
    path = connection.scope["path"]
    if addresses.is_foreign(connection):
        return PlainTextResponse("Request refused: wrong Host or Origin.", 403)
    if path.startswith(_AGENTS):
        return PlainTextResponse("Not found.", 404)
    try:
        if path == _HEALTH or _may_enter(connection) or path in _OPEN:
            return None
        if path in _OPEN_FOR_OIDC and access.oidc_provider():
            return None
    except access.AccessError as error:
        return _broken(error)
    if not addresses.is_navigation(connection):
        return PlainTextResponse("Sign in at /login.", 401)
    if addresses.led_here_by_others(connection):
        return pages.onward(addresses.asked_for(connection))
    return RedirectResponse(addresses.to_login(addresses.asked_for(connection)), 303)


def _may_enter(connection: HTTPConnection) -> bool:
    """Return whether a request may pass; once sign-in was required, it stays required."""
    try:
        sessions().always = sessions().are_needed()
        return not sessions().always or sessions().whose(connection.cookies) is not None
    except access.AccessError:
        sessions().always = True
        raise


def _broken(error: access.AccessError) -> Response:
    """Answer if the list of users cannot be read; the reason is printed for the administrator."""
    print(f"error: {error}", flush=True)
    return pages.notice(
        "Unavailable",
        "The list of users cannot be read. The administrator can see the reason in the dashboard's terminal.",
        status=503,
    )


def _guarded(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
