"""A real browser on the real dashboard: where Chromium comes from, how a home is served, when a page is ready."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from playwright.sync_api import Browser, Page, Playwright

from sweeper.paths import Home

FLAGS = (
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREEN = {"width": 1280, "height": 800}
ANSWERS_S = 90
READY_MS = 60_000
ENDS_S = 30
FETCH_S = 900

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WAYS = (
    f"{sys.executable} -m playwright install chromium",
    "apt-get update && apt-get install -y --no-install-recommends chromium",
)


def chromium(playwright: Playwright) -> str:
    """Return the program of a Chromium, which is fetched where there is none.

    Raises:
        AssertionError: If there is none and none can be fetched, with what to do.
    """
    with FileLock(Path(tempfile.gettempdir()) / "sweeper-tests-chromium.lock"):
        found, said = _present(playwright), []
        for command in _WAYS:
            if found is None:
                said.append(_tried(command))
                found = _present(playwright)
    assert found, (
        "the tests of the dashboard need Chromium; install it (`playwright install chromium`, or your system's "
        "package) or name it in SWEEPER_CHROMIUM. Tried here:\n" + "\n".join(said)
    )
    return found


def _present(playwright: Playwright) -> str | None:
    places = (os.environ.get("SWEEPER_CHROMIUM"), playwright.chromium.executable_path, *map(shutil.which, _NAMES))
    return next((place for place in places if place and Path(place).is_file()), None)


def _tried(command: str) -> str:
    try:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        return f"$ {command}\nno end after {FETCH_S} s"
    return f"$ {command}\n{(done.stdout + done.stderr)[-1000:]}"


@dataclass(frozen=True)
class Served:
    """A dashboard that answers.

    Attributes:
        url: Its address, without a slash at the end.
        port: Its port.
        process: ``sweeper dashboard``, the leader of a process group of its own.
        log: What it printed so far, both streams.
    """

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return what it printed so far."""
        return self.log.read_text(errors="replace")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(holds: Callable[[], object], what: str, seconds: float = ANSWERS_S) -> None:
    """Wait until something holds; ``what`` is said where it never does."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"after {seconds} s: {what}"
        time.sleep(0.1)


@contextmanager
def serving(home: Home, log: Path, **options: str | int) -> Iterator[Served]:
    """Run ``sweeper dashboard`` on a home; ``options`` are further ones of it, ``ssl_cert`` being ``--ssl-cert``."""
    port = int(options.pop("port", 0)) or free_port()
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "sweeper", "dashboard", "--no-browser", "--port", str(port), *flags]
    environment = {**os.environ, "SWEEPER_HOME": str(home.folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    served = Served(f"{'https' if 'ssl_cert' in options else 'http'}://127.0.0.1:{port}", port, process, log)
    try:
        wait_until(lambda: process.poll() is not None or _answers(served.url), "the dashboard does not answer")
        assert process.poll() is None, served.output()
        yield served
    finally:
        _end(process)


def _answers(url: str) -> bool:
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE  # the certificates of the tests are their own
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5, context=anything) as answer:
            return bool(answer.read() == b"ok")
    except OSError:  # it does not listen yet, or still loads what its pages need
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does, and see to it that nothing of its process group is left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(ENDS_S)
        until = time.monotonic() + ENDS_S  # what it started ends with it, which may take a moment
        while _group_lives(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        left = _group_lives(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert not left, "the dashboard left processes behind"


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def opened(browser: Browser) -> Iterator[Page]:
    """Open a page that has no cookies yet; it is an error where its scripts raise anything."""
    context = browser.new_context(viewport=SCREEN, ignore_https_errors=True)
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


def settled(page: Page) -> None:
    """Wait until Streamlit is connected and has finished rendering, fonts and charts included."""
    state = '[data-testid="stApp"][data-test-connection-state="CONNECTED"][data-test-script-state="notRunning"]'
    page.wait_for_selector(state, timeout=READY_MS)
    page.wait_for_function(
        """() => document.querySelectorAll('[data-testid="stSkeleton"]').length === 0
            && [...document.querySelectorAll('[data-testid="stPlotlyChart"]')].every(
                chart => chart.querySelector('.main-svg'))""",
        timeout=READY_MS,
    )
    page.evaluate("document.fonts.ready.then(() => true)")
    page.wait_for_selector(state, timeout=READY_MS)


def pictures() -> Path:
    """Return the folder for pictures, which SWEEPER_SCREENSHOTS names."""
    folder = Path(os.environ.get("SWEEPER_SCREENSHOTS") or Path(tempfile.gettempdir()) / "sweeper-screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shot(page: Page, name: str, theme: str) -> Path:
    """Keep a picture of the whole page in ``light`` or ``dark``."""
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
    settled(page)
    before = page.viewport_size or SCREEN
    # Streamlit scrolls inside the page, so the window must grow for a picture of all of it.
    tallest = """() => Math.max(...[document.documentElement,
        ...document.querySelectorAll('[data-testid="stMain"], [data-testid="stSidebarContent"]')
        ].map(part => part.scrollHeight))"""
    page.set_viewport_size({"width": before["width"], "height": max(before["height"], int(page.evaluate(tallest)))})
    settled(page)
    path = pictures() / f"{name}-{theme}.png"
    page.screenshot(path=path, animations="disabled")
    page.set_viewport_size(before)
    return path
