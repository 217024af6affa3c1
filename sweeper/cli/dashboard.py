"""``sweeper dashboard``: the dashboard of this home, served to this machine, or to others who sign in."""

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
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    host: Annotated[
        str, typer.Option(help="Address to serve at; others than this machine's own need users.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name that browsers reach it by, as behind a proxy.")
    ] = None,
    ssl_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), to serve https.")] = None,
    ssl_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
) -> None:
    """Show the studies and adapters of this home in a browser, until Ctrl-C.

    It answers this machine only unless `--host` says otherwise; then everyone must sign in, as `sweeper users` and
    `dashboard-secrets.toml` in the home say. It sends no usage statistics.
    """
    address = _resolved(host)
    home = Home.current()
    _refuse_open_doors(home, address)
    _refuse_bad_certificate(ssl_cert, ssl_key)
    _refuse_taken(address, port)
    scheme = "https" if ssl_cert else "http"
    say(f"dashboard of {safe(home.folder)} at {scheme}://{_in_url(_reached_at(address))}:{port}, Ctrl-C ends it")
    if not ssl_cert and not ip_address(address).is_loopback:
        say(
            "[yellow]warning:[/] over plain http, passwords and everything shown can be read on the way; give "
            "--ssl-cert and --ssl-key, or put it behind a proxy that speaks https",
            stderr=True,
        )
    settings: dict[str, object] = {"server.address": address, "server.port": port, "server.headless": not browser}
    if ssl_cert and ssl_key:
        settings |= {"server.sslCertFile": ssl_cert.absolute(), "server.sslKeyFile": ssl_key.absolute()}
    serve(settings, [*_names(host, address), *map(_checked_name, allow_host or ())], home)


def serve(settings: dict[str, object], hosts: Iterable[str], home: Home) -> None:
    """Run Streamlit in this process until it is interrupted; flags win over whatever the user configured for it."""
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
    """Return the address that a name stands for."""
    try:
        return str(ip_address(host))
    except ValueError:
        pass  # a name
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host: {host!r} is neither an address nor a name of one") from error
    return str(found[0][4][0])


def _refuse_open_doors(home: Home, address: str) -> None:
    """Refuse to serve others where nobody could be asked who they are, and files that would be refused later."""
    accounts, provider = Accounts(home).all(), oidc_provider(home)
    if accounts or not ip_address(address).is_loopback:
        signing_key(home)
    if ip_address(address).is_loopback or any(not account.by_oidc or provider for account in accounts):
        return
    raise AccessError(
        f"at {address} others could reach the dashboard, and nobody can sign in yet; add whoever may use it with "
        f"`sweeper users add NAME --role editor`, or set up OIDC in {home.dashboard_secrets} and add them with "
        "`--oidc`. To serve this machine only, leave --host out"
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
            f"{certificate} and {key} are no certificate and its key without a password: {error}"
        ) from error


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"port {port} cannot be used at {address} ({reason}); choose another with --port, or another --host"
        ) from error


def _names(host: str, address: str) -> set[str]:
    """Return what browsers may call the dashboard: a page that reached it by another name may not talk to it."""
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
        raise UserError(f"--allow-host: {name!r} is no host name, such as sweeper.example.org or *.example.org")
    return name


def _reached_at(address: str) -> str:
    return "localhost" if ip_address(address).is_unspecified else address


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
