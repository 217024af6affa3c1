"""The real server asked by strangers, and every page asked for what there is not.

What is tested elsewhere:

======================================================  =====================================================
HTML, Markdown, addresses, ANSI in names and texts      hostile_texts... in tests/dashboard: pages, trial,
                                                        compare, control, rows, adapters
a viewer's clicks on an editor's buttons                tests/dashboard/test_dashboard_{pages,control,
                                                        adapters,playground}.py, test_dashboard_sign_in.py
a Host or Origin of another site, forged forms          tests/dashboard/test_dashboard_sign_in.py
promotions that meet between judging and writing        tests/registry/test_registry_gate.py
prompts beyond the model's context                      tests/playground/test_playground_worker.py
======================================================  =====================================================
"""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import hostile_parts  # noqa: F401 - lets the dashboard's helpers be found
import psutil
import pytest
from itsdangerous import URLSafeTimedSerializer
from judged import Judged

from sweeper.access import Accounts
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry import Stage
from sweeper.store import Database
from sweeper_dashboard.data import changes

chrome = pytest.importorskip("browser")
filled_home = pytest.importorskip("filled_home")

PASSWORD, WRONG = "correct horse battery", "a staple, or whatever it was"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chrome.Served]:
    """A dashboard with two users, one for all tests: starting it takes long."""
    folder = tmp_path_factory.mktemp("served")
    home = Home(folder / "home")
    with Database.open(home.database, create=True) as database:
        filled_home.Filler(home, database).whole()
    for name, role in (("ann", "editor"), ("vic", "viewer"), ("zoe", "viewer")):
        Accounts(home).add(name, role, PASSWORD)
    with chrome.serving(home, folder / "dashboard.log") as found:
        yield found


def ask(served: chrome.Served, path: str, method: str = "GET", body: object = None, **headers: str):
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer, text


def sign_in(served: chrome.Served, name: str, password: str, address: str) -> int:
    """Fill in the form as a browser behind a proxy does, and return the status of the answer."""
    answer, page = ask(served, "/login")
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token
    fields = urllib.parse.urlencode({"token": token[1], "name": name, "password": password})
    sent = {
        "Cookie": answer.headers["set-cookie"].partition(";")[0],
        "Content_Type": "application/x-www-form-urlencoded",
        "X_Forwarded_For": address,
    }
    answer, _ = ask(served, "/login", "POST", fields, **sent)
    return answer.status


def test_a_forged_cookie_opens_nothing(served):
    key = (served.log.parent / "home" / "dashboard-key").read_text()
    name = f"sweeper-session-{served.port}"
    payload = ["ann", Accounts(Home(served.log.parent / "home")).find("ann").stamp, "00"]
    genuine = URLSafeTimedSerializer(key, salt="sweeper dashboard session").dumps(payload)
    assert ask(served, "/_stcore/host-config", Cookie=f"{name}={genuine}")[0].status == 200
    old = URLSafeTimedSerializer(key, salt="sweeper dashboard session")
    old.make_signer = lambda salt=None: _Earlier(URLSafeTimedSerializer.make_signer(old, salt))  # type: ignore[method-assign]
    first, _, rest = genuine.partition(".")
    forged = {
        "signed with another key": URLSafeTimedSerializer("x" * 64, salt="sweeper dashboard session").dumps(payload),
        "signed with no key": URLSafeTimedSerializer("", salt="sweeper dashboard session").dumps(payload),
        "signed for something else": URLSafeTimedSerializer(key, salt="another").dumps(payload),
        "of another stamp": URLSafeTimedSerializer(key, salt="sweeper dashboard session").dumps(["ann", "x", "00"]),
        "of nobody": URLSafeTimedSerializer(key, salt="sweeper dashboard session").dumps(["eve", payload[1], "00"]),
        "of yesterday": old.dumps(payload),
        # Not the last character: two of its bits mean nothing in base64.
        "a bit changed": genuine[:-2] + ("A" if genuine[-2] != "A" else "B") + genuine[-1],
        "another payload": f"{first[:-2]}xx.{rest}",
        "unsigned": first,
        "a JWT without a signature": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
        "compressed noise": ".eJ" + "A" * 200 + ".x.y",
        "long": "A" * 20_000,
        "no text": "\xff\xfe",
        "SQL": "' OR 1=1 --",
    }
    for what, cookie in forged.items():
        assert ask(served, "/_stcore/host-config", Cookie=f"{name}={cookie}")[0].status in (400, 401, 431), what
    assert served.process.poll() is None
    assert "Traceback" not in served.output()


class _Earlier:
    """A signer whose clock is a day behind."""

    def __init__(self, signer):
        self._signer = signer
        self._signer.get_timestamp = lambda: int(time.time()) - 24 * 3600

    def __getattr__(self, name):
        return getattr(self._signer, name)


def test_a_hundred_failed_log_ins_at_once_are_five_guesses(served):
    before = psutil.Process(served.process.pid).memory_info().rss
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda n: sign_in(served, "ann", WRONG, f"10.1.{n}.1"), range(100)))
    assert statuses[401] <= 5 + 4 and statuses[429] == 100 - statuses[401], statuses  # one more after 1, 2, 4, 8 s
    while sign_in(served, "ann", WRONG, "10.2.0.1") == 401 and statuses[401] < 20:
        statuses[401] += 1
    assert sign_in(served, "ann", PASSWORD, "10.2.0.1") == 429, "the right password must wait as long"
    assert sign_in(served, "zoe", PASSWORD, "10.2.0.2") == 303, "others need not"
    assert psutil.Process(served.process.pid).memory_info().rss < before + 200 * 1024**2
    assert WRONG not in served.output() and "Traceback" not in served.output()


def raw(served: chrome.Served, head: str, pieces: Iterator[bytes], seconds: float) -> bytes:
    """Send a request piece by piece until it is answered or the server hangs up, and return what it said."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=1) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        until, said = time.monotonic() + seconds, b""
        while time.monotonic() < until:
            try:
                client.sendall(next(pieces))
                client.settimeout(0.05)
                got = client.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return said
            if not got:
                return said
            said += got
    raise AssertionError(f"after {seconds} s it still listens; it said {said[:200]!r}")


def endless(piece: bytes, pause_s: float = 0.0) -> Iterator[bytes]:
    while True:
        time.sleep(pause_s)
        yield piece


CHUNK = b"8000\r\n" + b"a" * 0x8000 + b"\r\n"


@pytest.mark.parametrize("path", ["/login", "/", "/_stcore/upload_file/x/y", "/media/x", "/oauth2callback"])
def test_a_body_that_never_ends_is_answered_and_not_kept(served, path):
    host = f"127.0.0.1:{served.port}"
    before = psutil.Process(served.process.pid).memory_info().rss
    flood = f"POST {path} HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\nConnection: close"
    answer = raw(served, flood, endless(CHUNK), 20)
    assert not answer or int(answer.split()[1]) in (400, 401, 413), answer[:200]
    said = f"POST {path} HTTP/1.1\nHost: {host}\nContent-Length: 99999999999\nConnection: close"
    answer = raw(served, said, endless(b"a" * 0x8000), 20)
    assert not answer or int(answer.split()[1]) in (400, 401, 413), answer[:200]
    assert psutil.Process(served.process.pid).memory_info().rss < before + 100 * 1024**2
    assert ask(served, "/_stcore/health")[1] == "ok"


def test_a_body_that_comes_a_letter_at_a_time_is_not_waited_for(served):
    host = f"127.0.0.1:{served.port}"
    slow = f"POST /login HTTP/1.1\nHost: {host}\nContent-Length: 5000\nConnection: close"
    answer = raw(served, slow, endless(b"a", 0.2), 30)
    assert int(answer.split()[1]) == 400
    assert ask(served, "/_stcore/health")[1] == "ok"


def test_a_request_of_a_megabyte_is_refused(served):
    for path, headers in (("/login?next=" + "a" * 1_000_000, {}), ("/login", {"X_Long": "a" * 1_000_000})):
        with suppress(OSError):  # it may hang up while the rest is on its way
            assert ask(served, path, **headers)[0].status in (400, 414, 431)
        assert ask(served, "/_stcore/health")[1] == "ok"


def test_two_editors_who_promote_at_once_are_one_promotion_and_one_refusal(tmp_path):
    home = Home.current()
    good = [1.0] * 40
    with Database.open(home.database, create=True) as database:
        itn = Judged(home, database, tmp_path)
        itn.study()
        itn.score(None, [0.0] * 40)
        for number in range(4):
            itn.version(number, good)
    for first in range(1, 4, 2):
        start, said = threading.Barrier(2), list[str]()

        def promote(version: int, actor: str, start: threading.Barrier = start, said: list[str] = said) -> None:
            start.wait()
            try:
                said.append(changes.move("itn", version, "production", actor, force=True))
            except RegistryError as error:
                said.append(f"refused: {error}")

        editors = [threading.Thread(target=promote, args=(first + n, f"editor {n}")) for n in range(2)]
        for editor in editors:
            editor.start()
        for editor in editors:
            editor.join()
        with Database.open(home.database, create=False) as database:
            stages = Counter(record.stage for record in database.adapters.all("itn"))
            done = [action for action in database.actions.all() if action.kind == "promote"]
        assert stages[Stage.PRODUCTION] == 1, (said, stages)
        accepted = [text for text in said if not text.startswith("refused")]
        refusals = [text for text in said if text.startswith("refused")]
        assert accepted and all("just moved by someone else" in text for text in refusals), said
        assert len(done) >= (first + 1) // 2


def test_no_file_of_the_home_can_be_asked_for(served):
    answer, _ = ask(served, "/login")
    assert answer.status == 200
    mine = URLSafeTimedSerializer(
        (served.log.parent / "home" / "dashboard-key").read_text(), salt="sweeper dashboard session"
    ).dumps(["vic", Accounts(Home(served.log.parent / "home")).find("vic").stamp, "01"])
    cookie = f"sweeper-session-{served.port}={mine}"
    for path in (
        *("/sweeper.db", "/dashboard-key", "/../dashboard-key", "/%2e%2e/dashboard-key", "/static/../../dashboard-key"),
        *("/media/../dashboard-key", "/media/%2e%2e%2fdashboard-key", "/app/static/%252e%252e/dashboard-key"),
        *("/component/x/../../../dashboard-key", "/component/x/..%2f..%2fdashboard-key", "//etc/passwd"),
        *("/static/..%5c..%5cdashboard-key", "/app/static/" + "../" * 12 + "etc/passwd", "/static/%00"),
    ):
        answer, text = ask(served, path, Cookie=cookie)
        secret = Path(served.log.parent / "home" / "dashboard-key").read_text()
        assert secret not in text and "root:" not in text and "SQLite format" not in text, path
        assert answer.status in (200, 307, 308, 400, 403, 404), (path, answer.status)  # 200: Streamlit's one page
