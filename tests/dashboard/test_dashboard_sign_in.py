"""Signing in, at the real server: in Chromium as people do, and with raw requests as others would."""

from __future__ import annotations

import re
import socket
import urllib.parse
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import browser as chrome
import pytest
from filled_home import Filler

from sweeper.access import Accounts
from sweeper.paths import Home
from sweeper.store import Database

PASSWORD = "correct horse battery"
WRONG = "a staple, or whatever it was"
HIDDEN = (
    *("/", "/study?study=itn", "/app.py", "/index.html", "/static/js/index.js", "/media/0123.csv", "/component/x/y"),
    *("/_stcore/host-config", "/_stcore/metrics", "/_stcore/upload_file/a/b", "/_stcore/script-health-check"),
    *("/login/", "//login", "/login/../media/x", "/login/oidc", "/auth/login?provider=x", "/auth/logout"),
    "/oauth2callback?state=x",
)
UPGRADE = (
    "GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
)


def ann_and_vic(home: Home) -> Accounts:
    accounts = Accounts(home)
    accounts.add("ann", "editor", PASSWORD)
    accounts.add("vic", "viewer", PASSWORD)
    return accounts


@pytest.fixture
def people(home) -> Accounts:
    return ann_and_vic(home)


@pytest.fixture
def served(serve, fill, home, people) -> chrome.Served:
    """A dashboard of the test's own, whose users and log are looked at or changed."""
    fill.whole()
    return serve(home)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chrome.Served]:
    """A dashboard for all tests that only knock at it."""
    folder = tmp_path_factory.mktemp("standing")
    home = Home(folder / "home")
    with Database.open(home.database, create=True) as database:
        Filler(home, database).whole()
        Filler(home, database).whole("one")
    ann_and_vic(home)
    with chrome.serving(home, folder / "dashboard.log") as served:
        yield served


def ask(
    served: chrome.Served, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[HTTPResponse, str]:
    """Ask as any program can; ``headers`` have ``_`` for ``-``."""
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer, text


def post(served: chrome.Served, name: str, password: str, onward: str = "/", **headers: str) -> HTTPResponse:
    """Fill the form in and send it."""
    answer, page = ask(served, "/login")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token
    fields = {"token": token[1], "name": name, "password": password, "next": onward}
    sent = {"Cookie": cookie, "Content_Type": "application/x-www-form-urlencoded", **headers}
    return ask(served, "/login", "POST", urllib.parse.urlencode(fields), **sent)[0]


def session(served: chrome.Served, name: str = "ann") -> str:
    answer = post(served, name, PASSWORD)
    assert answer.status == 303
    return answer.headers["set-cookie"].partition(";")[0]


def stream(served: chrome.Served, cookie: str = "", host: str = "", origin: str = "") -> int:
    """Return the status that a program gets that wants the websocket."""
    here = f"127.0.0.1:{served.port}"
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        text = UPGRADE.format(host=host or here, origin=origin or f"http://{here}", cookie=cookie)
        client.sendall(text.encode())
        return int(client.recv(4096).split()[1])


def sign_in(page, served: chrome.Served, name: str = "ann", password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_is_led_to_what_they_asked_for_and_signs_out(served, page, home):
    page.goto(f"{served.url}/study?study=itn")
    assert page.get_by_role("heading", name="Sign in").is_visible()
    sign_in(page, served, password=WRONG)
    assert page.get_by_role("alert").inner_text() == "Wrong name or password."
    assert WRONG not in page.content()
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    chrome.settled(page)
    assert page.url == f"{served.url}/study?study=itn"
    sidebar = page.get_by_test_id("stSidebar")
    assert "ann" in sidebar.inner_text() and "editor" in sidebar.inner_text()
    (cookie,) = (found for found in page.context.cookies() if found["name"].startswith("sweeper-session"))
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    copied = f"{cookie['name']}={cookie['value']}"
    assert stream(served, copied) == 101

    sidebar.get_by_role("link", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto(served.url)
    assert page.get_by_role("heading", name="Sign in").is_visible()
    assert stream(served, copied) == 403

    everything = served.output().encode() + b"".join(
        path.read_bytes() for path in home.folder.rglob("*") if path.is_file()
    )
    for secret in (PASSWORD, WRONG, cookie["value"]):
        assert secret.encode() not in everything
    assert (home.folder / "dashboard-key").read_text() not in served.output()


@pytest.mark.long
def test_a_viewer_is_one_on_every_page(standing, page):
    page.goto(standing.url)
    sign_in(page, standing, "vic")
    chrome.settled(page)
    assert "viewer" in page.get_by_test_id("stSidebar").inner_text()


CHANGING = ("candidate", "Archive", "Save", "Add", "Pause", "Resume", "Stop", "Run", "Change budget")
"""What buttons say that change something."""


def test_a_viewer_finds_every_button_closed_that_changes_something(standing, page):
    page.goto(standing.url)
    sign_in(page, standing, "vic")
    for address in ("adapters?adapter=itn&version=1&section=Production", "adapters?adapter=itn&version=1", "control"):
        page.goto(f"{standing.url}/{address}")
        chrome.settled(page)
        buttons = page.get_by_test_id("stMain").locator('[data-testid^="stBaseButton"]').all()
        plain = [each for each in buttons if not re.search("egment|pill", str(each.get_attribute("data-testid")))]
        changing = [each for each in plain if any(word in each.inner_text() for word in CHANGING)]
        assert changing and all(each.is_disabled() for each in changing), address


@pytest.mark.parametrize("change", ["remove", pytest.param("password", marks=pytest.mark.long)])
def test_an_open_page_ends_with_its_user_or_their_password(served, page, people, change):
    page.goto(served.url)
    sign_in(page, served)
    chrome.settled(page)
    people.remove("ann") if change == "remove" else people.set_password("ann", PASSWORD)
    page.get_by_role("link", name="Adapters").click()
    page.wait_for_url("**/login")
    page.goto(f"{served.url}/adapters")
    assert page.get_by_role("heading", name="Sign in").is_visible()


def test_nothing_answers_who_has_not_signed_in(standing):
    for path in HIDDEN:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            answer, text = ask(standing, path, method)
            assert answer.status == 401, (method, path)
            assert text in ("", "Sign in at /login."), (method, path)
    answer, text = ask(standing, "/study?study=itn", Accept="text/html")
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=%2Fstudy%3Fstudy%3Ditn")
    for cookie in (
        "",
        "sweeper-session=x",
        f"sweeper-session-{standing.port}=x",
        f"sweeper-session-{standing.port}=a.b.c",
    ):
        assert stream(standing, cookie) == 403
    assert ask(standing, "/_stcore/health")[1] == "ok"
    mine = session(standing)
    assert stream(standing, mine) == 101
    assert ask(standing, "/_stcore/host-config", Cookie=mine)[0].status == 200
    assert ask(standing, "/media/0123.csv", Cookie=mine)[0].status == 404


def test_foreign_pages_and_hosts_get_nothing_even_with_a_session(standing):
    mine, here = session(standing), f"127.0.0.1:{standing.port}"
    assert stream(standing, mine, origin="http://evil.example") == 403
    assert stream(standing, mine, origin=f"http://localhost:{standing.port}") == 403
    assert stream(standing, mine, origin="null") == 403
    assert stream(standing, mine, host="evil.example", origin="http://evil.example") == 403
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": f"evil.example:{standing.port}"}):
        for path in ("/", "/login", "/_stcore/health", "/media/x"):
            assert ask(standing, path, Cookie=mine, **headers)[0].status == 403, (headers, path)
    assert ask(standing, "/logout", "POST", Cookie=mine, Sec_Fetch_Site="cross-site")[0].status == 403
    assert ask(standing, "/_stcore/host-config", Cookie=mine, Origin=f"http://{here}")[0].status == 200


def test_agents_are_off_and_answers_cannot_be_framed(standing):
    mine = session(standing)
    for path in ("interact", "openapi.json", "mcp"):
        assert ask(standing, f"/_stcore/agent/{path}", Cookie=mine)[0].status == 404
    for path in ("/", "/login"):
        headers = ask(standing, path, Cookie=mine if path == "/" else "")[0].headers
        assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_form_is_ours_and_leads_nowhere_else(standing):
    forged = urllib.parse.urlencode({"name": "ann", "password": PASSWORD, "token": "x"})
    for headers in ({}, {"Cookie": f"sweeper-form-{standing.port}=y"}, {"Cookie": f"sweeper-form-{standing.port}="}):
        answer, _ = ask(standing, "/login", "POST", forged, **headers)
        assert answer.status == 400 and "sweeper-session" not in str(answer.headers)
    assert post(standing, "ann", PASSWORD, Origin="http://evil.example").status == 403
    assert ask(standing, "/login", "POST", "x" * 100_000)[0].status == 400
    for onward in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil",
        "/a\r\nb: c",
    ):
        assert post(standing, "ann", PASSWORD, onward).headers["location"] == "/"
    assert post(standing, "ann", PASSWORD, "/trial?study=itn&trial=2").headers["location"] == "/trial?study=itn&trial=2"
    hostile = ask(standing, "/login?next=" + urllib.parse.quote('/"><script>alert(1)</script>'))[1]
    assert "<script" not in hostile


def test_guessing_is_slow_also_for_names_that_do_not_exist(served):
    for name in ("ann", "nobody"):
        answers = [post(served, name, WRONG, X_Forwarded_For=f"10.0.0.{n}") for n in range(7)]
        assert [answer.status for answer in answers[:5]] == [401] * 5
        assert answers[-1].status == 429 and int(answers[-1].headers["retry-after"]) > 0
    assert post(served, "vic", PASSWORD, X_Forwarded_For="10.0.1.1").status == 303


@pytest.mark.long
def test_links_on_other_pages_work_for_who_is_signed_in(standing, page):
    page.goto(standing.url)
    sign_in(page, standing)
    chrome.settled(page)
    elsewhere = page.context.new_page()
    link = f'<a href="{standing.url}/study?study=itn">here</a> <a href="{standing.url}/logout">out</a>'
    elsewhere.route("http://elsewhere.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
    elsewhere.goto("http://elsewhere.example/")
    elsewhere.get_by_text("here").click()
    chrome.settled(elsewhere)
    assert elsewhere.url == f"{standing.url}/study?study=itn"
    elsewhere.goto("http://elsewhere.example/")
    elsewhere.get_by_text("out").click()
    assert elsewhere.get_by_role("heading", name="Sign out?").is_visible()
    page.reload()
    chrome.settled(page)
    assert "ann" in page.get_by_test_id("stSidebar").inner_text()


def test_a_session_survives_a_restart_and_an_unreadable_list_closes(serve, fill, home, people):
    fill.study()
    first = serve(home)
    mine = session(first)
    name, value = mine.split("=", 1)
    second = serve(home)
    other = name.replace(str(first.port), str(second.port))
    assert stream(second, f"{other}={value}") == 101
    people._path.chmod(0o644)
    assert ask(second, "/", Cookie=f"{other}={value}")[0].status == 503
    assert stream(second, f"{other}={value}") == 403
    assert "chmod 600" in second.output()
    people._path.chmod(0o600)
    people._path.unlink()
    assert ask(second, "/", Cookie=f"{other}={value}")[0].status == 401  # without users it does not open


def test_users_added_while_it_serves_close_it(serve, page, fill, home):
    fill.study()
    served = serve(home)
    page.goto(served.url)
    chrome.settled(page)
    assert "Sign out" not in page.get_by_test_id("stSidebar").inner_text()
    Accounts(home).add("ann", "editor", PASSWORD)
    page.get_by_role("link", name="Adapters").click()
    page.wait_for_url("**/login")


def test_the_page_to_sign_in_at_can_be_looked_at(standing, page):
    page.goto(standing.url)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.screenshot(path=chrome.pictures() / f"login-{theme}.png", full_page=True)
    page.set_viewport_size({"width": 320, "height": 560})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
