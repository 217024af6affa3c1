"""A small OIDC provider, run as a program of its own: ``python oidc_provider.py PORT REDIRECT_URI``.

It knows one client, asks for PKCE, and lets whoever comes say who they are. What it signs is RS256.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import sys
import time
from html import escape
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "sweeper", "the-secret-of-the-client-at-the-provider"
PEOPLE = {"ann@example.org": True, "vic@example.org": True, "eve@example.org": True, "una@example.org": False}
"""E-mails, and whether they were verified."""


def provider(issuer: str, redirect_uri: str) -> Starlette:
    key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": "only"})
    codes: dict[str, dict[str, str]] = {}

    async def configuration(request: Request) -> Response:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse(
            {
                "issuer": issuer,
                **{name: f"{issuer}/{path}" for name, path in paths.items()},
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def keys(request: Request) -> Response:
        return JSONResponse(KeySet([key]).as_dict(private=False))

    async def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        if (asked["client_id"], asked["redirect_uri"], asked["code_challenge_method"]) != (
            CLIENT,
            redirect_uri,
            "S256",
        ):
            return Response("unknown client", 400)
        if request.method == "GET":
            buttons = "".join(f"<button name=email value={escape(who)}>{escape(who)}</button>" for who in PEOPLE)
            return HTMLResponse(f"<form method=post>{buttons}<button name=email value=''>refuse</button></form>")
        email = (await request.body()).decode().partition("=")[2].replace("%40", "@")
        if not email:
            return RedirectResponse(
                f"{redirect_uri}?{urlencode({'error': 'access_denied', 'state': asked['state']})}", 302
            )
        code = secrets.token_urlsafe()
        codes[code] = {**asked, "email": email}
        return RedirectResponse(f"{redirect_uri}?{urlencode({'code': code, 'state': asked['state']})}", 302)

    async def token(request: Request) -> Response:
        form = await request.form()
        asked = codes.pop(str(form["code"]))
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest()).rstrip(b"=")
        if request.headers["authorization"] != f"Basic {basic}" or challenge.decode() != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": issuer, "aud": CLIENT, "sub": asked["email"], "iat": now, "exp": now + 60}
        claims |= {"nonce": asked["nonce"], "email": asked["email"], "email_verified": PEOPLE[asked["email"]]}
        signed = jwt.encode({"alg": "RS256", "kid": "only"}, claims, key)
        return JSONResponse({"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": signed})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", configuration),
            Route("/keys", keys),
            Route("/authorize", authorize, methods=["GET", "POST"]),
            Route("/token", token, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    port, redirect_uri = int(sys.argv[1]), sys.argv[2]
    uvicorn.run(provider(f"http://localhost:{port}", redirect_uri), host="127.0.0.1", port=port, log_level="warning")
