"""``sweeper dashboard``: the dashboard of this home, served to this machine only."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.output import safe, say
from sweeper.cli.shipped import DASHBOARD, shipped_folder
from sweeper.errors import UserError
from sweeper.paths import Home

_HOST = "127.0.0.1"


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Show the studies and adapters of this home in a browser, until Ctrl-C.

    It answers this machine only, and sends no usage statistics.
    """
    app = shipped_folder(DASHBOARD) / "app.py"
    _refuse_taken(port)
    say(f"dashboard of {safe(Home.current().folder)} at http://{_HOST}:{port}, Ctrl-C ends it")
    serve(app, port, browser=browser)


def serve(app: Path, port: int, *, browser: bool) -> None:
    """Run Streamlit in this process until it is interrupted; flags win over whatever the user configured for it."""
    from streamlit.web import cli

    settings = {
        "server.address": _HOST,
        "server.port": port,
        "server.headless": not browser,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
    }
    flags = [f"--{name}={str(value).lower()}" for name, value in settings.items()]
    cli.main(["run", str(app), *flags], prog_name="streamlit", standalone_mode=False)


def _refuse_taken(port: int) -> None:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"port {port} cannot be used ({reason}); choose another with --port") from error
