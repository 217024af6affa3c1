"""The server that ``sweeper dashboard`` runs: Streamlit behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from ipaddress import ip_address
from threading import Thread
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from streamlit import cli_util, config
from streamlit.web.server.server_util import get_display_address, get_url

from sweeper_dashboard.access.gate import Gate
from sweeper_dashboard.access.routes import routes
from sweeper_dashboard.access.sessions import sessions
from sweeper_dashboard.data import access

PAGE_MODULES = (
    *(
        f"sweeper_dashboard.data.{name}"
        for name in ("comparison", "control", "playground", "training_data", "trial_files")
    ),
    *(f"sweeper_dashboard.views.{name}" for name in ("adapter_overview", "study_results", "study_search")),
    *("scipy.stats", "scipy.interpolate"),
)
"""Modules that are slow to import, loaded before the first visitor comes."""


def _serves_this_machine_only() -> bool:
    try:
        return ip_address(config.get_option("server.address") or "0.0.0.0").is_loopback
    except ValueError:
        return False


def _secrets() -> dict[str, Any] | None:
    """Return the settings of Streamlit's ``st.login``, whose cookies the home's own key signs."""
    provider = access.oidc_provider()
    return {"auth": {**provider.model_dump(), "cookie_secret": access.signing_key()}} if provider else None


@asynccontextmanager
async def _opened(_app: st.App) -> AsyncIterator[None]:
    """Load the slow modules, then open a browser if wanted, in a thread that does not hold up the server."""
    for name in PAGE_MODULES:
        import_module(name)
    if not config.get_option("server.headless"):
        url = get_url(get_display_address(config.get_option("server.address")))
        Thread(target=cli_util.open_browser, args=(url,), daemon=True).start()
    yield


sessions().always = not _serves_this_machine_only() or sessions().are_needed()
app = st.App("app.py", secrets=_secrets(), lifespan=_opened, routes=routes(), middleware=[Middleware(Gate)])
