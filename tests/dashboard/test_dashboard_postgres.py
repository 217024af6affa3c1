"""The pages on a home whose database is on a PostgreSQL server."""

from __future__ import annotations

import pytest
from filled_home import Filler
from test_dashboard_pages import PAGES, _rendered, _text

from sweeper.database_url import PostgresUrl
from sweeper.store import Database
from sweeper_dashboard.data import studies as data


@pytest.fixture
def there(home, server: PostgresUrl):
    url = server.written.replace(f"{server.url.username}@", f"{server.url.username}:s3cretpassw0rd@")
    home.bind(PostgresUrl(url))
    with Database.open(home.database, create=True) as database:
        fill = Filler(home, database)
        fill.whole()
        yield fill
    assert not home.database_file.exists()


def test_every_page_reads_from_the_server(show, there):
    for page in PAGES:
        app = show(page)
        assert not app.error or page == "training_data", page  # it reads the study's files, and this study has none
        assert "s3cretpassw0rd" not in "\n".join([*_rendered(app), _text(app)])
    (table,) = show().dataframe
    row = table.value.iloc[0]
    assert (row["study"], row["trials"], row["best"], row["test"]) == ("itn", "5 of 6", 1.2, 0.9)
    data.tag(["itn"], ["nightly"], "ada")
    assert [study.tags for study in data.studies()] == [("nightly",)]


def test_a_server_without_tables_is_an_empty_home_and_one_that_is_gone_is_named(show, home, server: PostgresUrl):
    home.bind(server)
    assert "no study has been run" in show().info[0].value
    home.bind(PostgresUrl("postgresql+psycopg://ada:s3cretpassw0rd@127.0.0.1:1/sweeps"))
    app = show()
    (fault,) = app.error
    assert "cannot be reached" in fault.value + _text(app)
    assert "s3cretpassw0rd" not in fault.value + _text(app)
