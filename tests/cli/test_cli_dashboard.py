"""``sweeper dashboard``, started for real: whom it answers, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sweeper.access import Accounts
from sweeper.cli import shipped
from sweeper.errors import SweeperError
from sweeper.paths import Home

STARTS_S = 60
PASSWORD = "correct horse battery"
UPGRADE = (
    "GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(port: int, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start it where Streamlit is configured to answer anyone."""
    (folder / ".streamlit").mkdir(exist_ok=True)
    (folder / ".streamlit" / "config.toml").write_text('[server]\nallowedHosts = ["rebound.example"]\n')
    lax = {"ADDRESS": "0.0.0.0", "ENABLE_CORS": "false", "ENABLE_XSRF_PROTECTION": "false", "ENABLE_AGENT_API": "true"}
    environment = {**os.environ, **{f"STREAMLIT_SERVER_{name}": value for name, value in lax.items()}}
    command = [sys.executable, "-m", "sweeper", "dashboard", "--port", str(port), "--no-browser", *options]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **piped, text=True, env=environment, cwd=folder)


def health(
    port: int, process: subprocess.Popen[str], scheme: str = "http", context: ssl.SSLContext | None = None
) -> str:
    """Return what the server says of its health, as soon as it is up."""
    until = time.monotonic() + STARTS_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(
                f"{scheme}://127.0.0.1:{port}/_stcore/health", timeout=5, context=context
            ) as answer:
                return str(answer.read().decode())
        except OSError:
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

    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{here}/_stcore/agent/openapi.json", timeout=5)

    taken = start(port, tmp_path)
    _, errors = taken.communicate(timeout=STARTS_S)
    assert taken.returncode == 2
    assert f"port {port} is not available at 127.0.0.1" in errors and "--port" in errors and "Traceback" not in errors

    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert str(tmp_path / "home") in printed.replace("\n", "") and here in printed
    assert "Traceback" not in errors


def refused(folder: Path, *options: str) -> str:
    """Return why it does not start."""
    process = start(free_port(), folder, *options)
    try:
        printed, errors = process.communicate(timeout=STARTS_S)
    finally:
        process.kill()
    assert process.returncode == 2 and "Traceback" not in errors, printed + errors
    return errors.replace("\n", " ")


@pytest.fixture
def users(tmp_path) -> Accounts:
    return Accounts(Home(tmp_path / "home"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_serves_no_others_before_anyone_can_sign_in(tmp_path, users, host):
    assert "sweeper users add" in refused(tmp_path, "--host", host)
    users.add("eve@example.org", "editor", None)  # without a provider they cannot
    assert "set up OIDC" in refused(tmp_path, "--host", host)


def test_what_would_open_a_door_is_refused(tmp_path, users):
    users.add("ann", "editor", PASSWORD)
    assert "neither an address nor a known host name" in refused(tmp_path, "--host", "no such host")
    assert "is not available" in refused(tmp_path, "--host", "192.0.2.1")
    for name in ("*", "*.", "http://x", "a/b", "a:1", ""):
        assert "is not a host name" in refused(tmp_path, "--allow-host", name)
    users._path.chmod(0o644)
    assert "chmod 600" in refused(tmp_path)


def test_a_certificate_must_be_one(tmp_path, users):
    users.add("ann", "editor", PASSWORD)
    certificate, key = certified(tmp_path)
    assert "go together" in refused(tmp_path, "--ssl-cert", str(certificate))
    assert "must be a certificate and" in refused(tmp_path, "--ssl-cert", str(key), "--ssl-key", str(certificate))
    assert "must be a certificate and" in refused(tmp_path, "--ssl-cert", str(key), "--ssl-key", str(tmp_path / "none"))


def certified(folder: Path) -> tuple[Path, Path]:
    """Make a certificate and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = x509.CertificateBuilder(
        issuer_name=(name := x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])),
        subject_name=name,
        public_key=(secret := ec.generate_private_key(ec.SECP256R1())).public_key(),
        serial_number=1,
        not_valid_before=(now := datetime.now(UTC)),
        not_valid_after=now + timedelta(days=1),
    ).sign(secret, hashes.SHA256())
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


@pytest.mark.parametrize("https", [False, True])
def test_to_others_it_is_served_to_who_signs_in(tmp_path, users, https):
    users.add("ann", "editor", PASSWORD)
    port, anyone = free_port(), ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    certificate, key = certified(tmp_path)
    options = ("--ssl-cert", str(certificate), "--ssl-key", str(key)) if https else ()
    process = start(port, tmp_path, "--host", "0.0.0.0", "--allow-host", "sweeper.example.org", *options)
    scheme = "https" if https else "http"

    def ask(host: str) -> http.client.HTTPMessage:
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}/login", headers={"Host": host})
        return urllib.request.urlopen(request, timeout=10, context=anyone).headers

    try:
        assert health(port, process, scheme, anyone) == "ok"
        for host in ("127.0.0.2:1", "evil.example", "sweeper.example.org.evil.example"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                ask(host)
        for host in ("sweeper.example.org", socket.gethostname(), f"127.0.0.1:{port}"):
            assert ("secure" in ask(host)["set-cookie"].lower()) is https
    finally:
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and f"{scheme}://localhost:{port}" in printed
    assert ("passwords and everything shown can be intercepted" in errors) is not https


def test_the_message_when_it_is_missing():
    with pytest.raises(SweeperError, match="sweeper_nowhere is missing"):
        shipped.shipped_folder("sweeper_nowhere")


def test_what_ships_is_found_without_importing_it():
    assert (shipped.shipped_folder(shipped.DASHBOARD) / "app.py").is_file()
    assert (shipped.shipped_folder(shipped.STUDIES) / "quickstart.yaml").is_file()
    assert "sweeper_dashboard.app" not in sys.modules
