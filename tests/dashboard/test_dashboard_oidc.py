"""Signing in by OIDC, gone through in Chromium with a provider of another site."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import browser as chrome
import oidc_provider
import pytest
from playwright.sync_api import Page

from sweeper.access import Accounts

PROVIDER = Path(oidc_provider.__file__)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


@pytest.fixture
def served(serve, fill, home):
    """A dashboard for whom the provider sends; the provider is ``localhost``, another site than ``127.0.0.1``."""
    fill.whole()
    port, mine = chrome.free_port(), chrome.free_port()
    callback = f"http://127.0.0.1:{mine}/oauth2callback"
    metadata = f"http://localhost:{port}/.well-known/openid-configuration"
    home.dashboard_secrets.touch(mode=0o600)
    home.dashboard_secrets.write_text(
        f'[auth]\nredirect_uri = "{callback}"\nserver_metadata_url = "{metadata}"\n'
        f'client_id = "{oidc_provider.CLIENT}"\nclient_secret = "{oidc_provider.SECRET}"\n'
    )
    Accounts(home).add("Ann@example.org", "editor", None)
    Accounts(home).add("una@example.org", "viewer", None)
    process = subprocess.Popen([sys.executable, PROVIDER, str(port), callback])
    try:
        chrome.wait_until(lambda: answers(metadata), "the provider does not answer")
        yield serve(home, port=mine)
    finally:
        process.kill()
        process.wait()


def go_to_provider(page: Page, served: chrome.Served, path: str = "") -> None:
    page.goto(f"{served.url}/{path}")
    assert page.get_by_label("Password").count() == 0
    page.get_by_role("link", name="Sign in with localhost").click()


def test_who_was_added_gets_in_and_streamlit_keeps_nothing_of_them(served, page, home):
    go_to_provider(page, served, "study?study=itn")
    page.get_by_role("button", name="ann@example.org").click()
    chrome.settled(page)
    assert page.url == f"{served.url}/study?study=itn"
    sidebar = page.get_by_test_id("stSidebar")
    assert "Ann@example.org" in sidebar.inner_text() and "editor" in sidebar.inner_text()
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert not [name for name in cookies if name.startswith("_streamlit_user")]
    assert cookies[f"sweeper-session-{served.port}"]["sameSite"] == "Strict"
    assert oidc_provider.SECRET not in served.output()

    Accounts(home).remove("ann@example.org")
    page.get_by_role("link", name="Adapters").click()
    page.wait_for_url("**/login")


@pytest.mark.parametrize(
    ("email", "said"),
    [
        ("eve@example.org", "which has no access"),
        pytest.param("una@example.org", "verified", marks=pytest.mark.long),
    ],
)
def test_others_are_told_why_they_get_nothing(served, page, email, said):
    go_to_provider(page, served)
    page.get_by_role("button", name=email).click()
    assert page.get_by_role("heading", name="No access").is_visible()
    assert said in page.inner_text("main") and email in page.inner_text("main")
    assert not [cookie for cookie in page.context.cookies() if cookie["name"].startswith("sweeper-session")]
    page.goto(served.url)
    assert page.get_by_role("heading", name="Sign in").is_visible()


def test_whom_the_provider_refuses_is_asked_again(served, page):
    go_to_provider(page, served)
    page.get_by_role("button", name="refuse").click()
    assert "did not sign you in" in page.get_by_role("alert").inner_text()
    page.goto(f"{served.url}/oauth2callback?code=x&state=forged")
    assert page.get_by_role("heading", name="Sign in").is_visible()
