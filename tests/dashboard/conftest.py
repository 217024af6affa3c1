from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import browser as chrome
import pytest
from filled_home import APP, Filler
from playwright.sync_api import Browser, Page, sync_playwright
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest

from sweeper.paths import Home
from sweeper.store import Database


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that is empty and shown by the dashboard."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SWEEPER_HOME", str(folder))
    return Home(folder)


@pytest.fixture
def fill(home: Home) -> Iterator[Filler]:
    with Database.open(home.database, create=True) as database:
        yield Filler(home, database)


@pytest.fixture
def show(home: Home) -> Callable[..., AppTest]:
    def run(page: str = "studies", **query: str) -> AppTest:
        """Open a page as an address would."""
        app = AppTest.from_file(APP, default_timeout=60)
        if page == "studies":
            app.query_params.update(query)
        app.run()
        if page != "studies":
            app.switch_page(f"views/{page}.py")
            app.query_params.update(query)
            app.run()
        assert not app.exception, app.exception
        return app

    return run


@pytest.fixture
def closed_buttons_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every click arrive, as a browser may send it that was told that the button is closed."""
    button = DeltaGenerator._button

    def opened(*args: Any, **options: Any) -> bool:
        return button(*args, **{**options, "disabled": False})

    monkeypatch.setattr(DeltaGenerator, "_button", opened)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium.

    One a module, not one a session: while Playwright runs, nothing else in the process can run an event loop.
    """
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chrome.chromium(playwright), args=list(chrome.FLAGS))
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has no cookies yet; the test fails where its scripts raise anything."""
    with chrome.opened(browser) as page:
        yield page


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., chrome.Served]]:
    """Return what serves a home as ``sweeper dashboard`` does, until the test ends."""
    with ExitStack() as stack:
        count = iter(range(100))

        def start(home: Home, **options: str | int) -> chrome.Served:
            log = tmp_path / f"dashboard-{next(count)}.log"
            return stack.enter_context(chrome.serving(home, log, **options))

        yield start
