"""``sweeper users``, run for real, on a terminal too."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

import pytest

PASSWORD = "correct horse battery"
ENDS_S = 60
COMMAND = (sys.executable, "-m", "sweeper", "users")


def users(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], input=given, capture_output=True, text=True, timeout=60)


def test_add_list_password_remove(tmp_path):
    assert "no users" in users("list").stdout
    added = users("add", "ann", "--role", "editor", "--password-stdin", given=f"{PASSWORD}\n")
    assert added.returncode == 0 and "ann may use the dashboard as editor" in added.stdout
    assert users("add", "eve@example.org", "--oidc").returncode == 0
    listed = users("list", "--json").stdout
    assert json.loads(listed) == [
        {"name": "ann", "role": "editor", "signs_in_by": "password"},
        {"name": "eve@example.org", "role": "viewer", "signs_in_by": "oidc"},
    ]
    table = users("list").stdout
    assert "eve@example.org" in table
    assert "argon2" not in listed + table
    kept = (tmp_path / "home" / "dashboard-users.json").read_text()
    assert users("password", "ann", "--password-stdin", given="another horse battery\n").returncode == 0
    assert (tmp_path / "home" / "dashboard-users.json").read_text() != kept
    assert users("remove", "ann").returncode == 0
    assert [user["name"] for user in json.loads(users("list", "--json").stdout)] == ["eve@example.org"]


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("add", "ann", "--password-stdin"), "short\n", "15 to 256 characters"),
        (("add", "ann", "--password-stdin"), "", "15 to 256 characters"),
        (("add", "ann"), f"{PASSWORD}\n", "--password-stdin"),
        (("add", "ann", "--oidc"), "", "not an e-mail address"),
        (("add", "a@b.c", "--oidc", "--password-stdin"), "", "exclude each other"),
        (("add", "../ann", "--password-stdin"), f"{PASSWORD}\n", "cannot be a user's name"),
        (("add", "ann", "--role", "root"), "", "root"),
        (("remove", "ann"), "", "there is no user"),
        (("password", "ann", "--password-stdin"), f"{PASSWORD}\n", "there is no user"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_written(tmp_path, arguments, given, said):
    done = users(*arguments, given=given)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and PASSWORD not in done.stderr
    assert not (tmp_path / "home" / "dashboard-users.json").exists()


def test_on_a_terminal_it_is_asked_for_twice_and_never_shown():
    printed = ask_on_a_terminal("add", "ann", answers=(PASSWORD, "not the same at all", PASSWORD, PASSWORD))
    assert "ann may use the dashboard as viewer" in printed
    assert "not the same" not in printed and PASSWORD not in printed
    assert printed.count("Password") >= 2 and "Repeat the password" in printed


def ask_on_a_terminal(*arguments: str, answers: tuple[str, ...]) -> str:
    """Answer each question as it is asked; return all that the terminal showed."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [*COMMAND, *arguments])
    shown, answered, left = b"", 0, list(answers)
    while select.select([terminal], [], [], ENDS_S)[0]:
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # Linux says so at the end of a terminal
            break
        if left and shown[answered:].endswith(b": "):
            answered = len(shown)
            os.write(terminal, f"{left.pop(0)}\n".encode())
    os.close(terminal)
    assert os.waitpid(process, 0)[1] == 0, shown
    return shown.decode()
