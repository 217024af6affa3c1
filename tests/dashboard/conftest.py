from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filled_home import APP, Filler
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
        app = AppTest.from_file(APP, default_timeout=20)
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
