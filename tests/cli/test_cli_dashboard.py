"""``sweeper dashboard``, started for real: whom it answers, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from sweeper.cli import shipped
from sweeper.errors import SweeperError

STARTS_S = 60
UPGRADE = (
    "GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(port: int, folder: Path) -> subprocess.Popen[str]:
    """Start it where Streamlit is configured to answer anyone."""
    (folder / ".streamlit").mkdir(exist_ok=True)
    (folder / ".streamlit" / "config.toml").write_text('[server]\nallowedHosts = ["rebound.example"]\n')
    lax = {"ADDRESS": "0.0.0.0", "ENABLE_CORS": "false", "ENABLE_XSRF_PROTECTION": "false"}
    environment = {**os.environ, **{f"STREAMLIT_SERVER_{name}": value for name, value in lax.items()}}
    command = [sys.executable, "-m", "sweeper", "dashboard", "--port", str(port), "--no-browser"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **piped, text=True, env=environment, cwd=folder)


def health(port: int, process: subprocess.Popen[str]) -> str:
    """Return what the server says of its health, as soon as it is up."""
    until = time.monotonic() + STARTS_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError("it did not start")


@pytest.fixture
def served(tmp_path):
    port = free_port()
    process = start(port, tmp_path)
    try:
        assert health(port, process) == "ok"
        yield port, process
    finally:
        process.kill()
        process.communicate()


def asks(port: int, host: str, origin: str) -> int:
    """Return the status that a browser gets that wants to talk to the pages."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(UPGRADE.format(host=host, origin=origin).encode())
        return int(client.recv(4096).split()[1])


def test_it_serves_this_machine_only_until_ctrl_c(served, tmp_path):
    port, process = served
    here = f"127.0.0.1:{port}"
    assert asks(port, here, f"http://{here}") == 101
    assert asks(port, "rebound.example", "http://rebound.example") == 403
    assert asks(port, here, "http://other.example") == 403
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)  # as any address but the one it is bound to

    taken = start(port, tmp_path)
    _, errors = taken.communicate(timeout=STARTS_S)
    assert taken.returncode == 2
    assert f"port {port} cannot be used" in errors and "--port" in errors and "Traceback" not in errors

    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert str(tmp_path / "home") in printed.replace("\n", "") and here in printed
    assert "Traceback" not in errors


def test_the_message_when_it_is_missing():
    with pytest.raises(SweeperError, match="sweeper_nowhere is missing"):
        shipped.shipped_folder("sweeper_nowhere")


def test_what_ships_is_found_without_importing_it():
    assert (shipped.shipped_folder(shipped.DASHBOARD) / "app.py").is_file()
    assert (shipped.shipped_folder(shipped.STUDIES) / "quickstart.yaml").is_file()
    assert "sweeper_dashboard.app" not in sys.modules
