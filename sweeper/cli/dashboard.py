"""``sweeper dashboard``: serves this home's dashboard to this machine, or to users who sign in."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from sweeper.access import Accounts, oidc_provider, signing_key
from sweeper.cli.output import safe, say
from sweeper.cli.shipped import DASHBOARD, shipped_folder
from sweeper.errors import AccessError, UserError
from sweeper.paths import Home

_HERE = ("localhost", "127.0.0.1")


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own requires users.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host name that browsers use, as behind a proxy; repeatable.")
    ] = None,
    ssl_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), to serve HTTPS.")] = None,
    ssl_key: Annotated[Path | None, typer.Option(help="Key of the certificate (PEM).")] = None,
) -> None:
    """Open the dashboard in a browser, until Ctrl-C.

    It serves only this machine unless `--host` is given; then everybody must sign in, with an account from
    `sweeper users` or by OIDC as set up in the home's `dashboard-secrets.toml`. It sends no usage statistics.
    """
    address = _resolved(host)
    home = Home.current()
    _refuse_open_doors(home, address)
    _refuse_bad_certificate(ssl_cert, ssl_key)
    _refuse_taken(address, port)
    reached = "localhost" if ip_address(address).is_unspecified else f"[{address}]" if ":" in address else address
    url = f"{'https' if ssl_cert else 'http'}://{reached}:{port}"
    say(f"dashboard of {safe(home.folder)} at {url}, press Ctrl-C to stop")
    if not ssl_cert and not ip_address(address).is_loopback:
        say(
            "[yellow]warning:[/] over plain HTTP, passwords and everything shown can be intercepted; pass "
            "--ssl-cert and --ssl-key, or put it behind an HTTPS proxy",
            stderr=True,
        )
    settings: dict[str, object] = {"server.address": address, "server.port": port, "server.headless": not browser}
    if ssl_cert and ssl_key:
        settings |= {"server.sslCertFile": ssl_cert.absolute(), "server.sslKeyFile": ssl_key.absolute()}
    serve(settings, [*_names(host, address), *map(_checked_name, allow_host or ())], home)


def serve(settings: dict[str, object], hosts: Iterable[str], home: Home) -> None:
    """Run Streamlit in this process until it is interrupted; flags override the user's Streamlit configuration."""
    from click.exceptions import Abort
    from streamlit.web import cli

    settings = settings | {
        "server.baseUrlPath": "",
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableAgentApi": False,
        "server.enableStaticServing": False,
        "server.scriptHealthCheckEnabled": False,
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "global.developmentMode": False,
        "logger.hideWelcomeMessage": True,
        "secrets.files": home.dashboard_secrets,  # and none of the user's own
    }
    flags = [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()]
    flags += [f"--server.allowedHosts={name}" for name in sorted(set(hosts))]
    server = shipped_folder(DASHBOARD) / "server.py"
    with suppress(Abort):  # Ctrl-C, which is how it ends
        cli.main(["run", str(server), *flags], prog_name="streamlit", standalone_mode=False)


def _resolved(host: str) -> str:
    """Return the IP address of a host name, or of an address itself."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host: {host!r} is neither an address nor a known host name") from error
    return str(found[0][4][0])


def _refuse_open_doors(home: Home, address: str) -> None:
    """Refuse to serve other machines before anybody can sign in, and files that would be refused later."""
    accounts, provider = Accounts(home).all(), oidc_provider(home)
    if accounts or not ip_address(address).is_loopback:
        signing_key(home)
    if ip_address(address).is_loopback or any(not account.by_oidc or provider for account in accounts):
        return
    raise AccessError(
        f"at {address} other machines can reach the dashboard, but there are no users yet; add one with "
        f"`sweeper users add NAME --role editor`, or set up OIDC in {home.dashboard_secrets} and add `--oidc`. "
        "To serve only this machine, leave out --host"
    )


def _refuse_bad_certificate(certificate: Path | None, key: Path | None) -> None:
    if not certificate and not key:
        return
    if not certificate or not key:
        raise UserError("--ssl-cert and --ssl-key go together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UserError(
            f"{certificate} and {key} must be a certificate and its key, without a password: {error}"
        ) from error


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"port {port} is not available at {address} ({reason}); choose another with --port, or another --host"
        ) from error


def _names(host: str, address: str) -> set[str]:
    """Return the host names that browsers may use; requests with any other are refused."""
    names = {host, address}
    if ip_address(address).is_loopback:
        return names | set(_HERE)
    if ip_address(address).is_unspecified:
        import psutil

        own = (found.address for addresses in psutil.net_if_addrs().values() for found in addresses)
        return names | {*own, *_HERE, socket.gethostname(), socket.getfqdn()}
    return names


def _checked_name(name: str) -> str:
    if not name.strip("*. ") or "/" in name or ":" in name or "*" in name.removeprefix("*."):
        raise UserError(f"--allow-host: {name!r} is not a host name such as sweeper.example.org or *.example.org")
    return name
