"""Users, passwords and private files, on real files and with real hashes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import traceback

import pytest

from sweeper.access import Accounts, oidc_provider, signing_key
from sweeper.access.passwords import SHORTEST, hashed, matches
from sweeper.errors import AccessError
from sweeper.paths import Home

PASSWORD = "correct horse battery"
HOSTILE = (
    "",
    " ann",
    "ann ",
    "../ann",
    "a/b",
    "a\nb",
    "a\x1b[31m",
    "<b>x</b>",
    "-rf",
    "änn",
    "a" * 129,
    "a b",
    "a\x00b",
)
AUTH = """[auth]
redirect_uri = "http://127.0.0.1:8501/oauth2callback"
client_id = "sweeper"
client_secret = "hidden-from-others"
server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"
"""


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def accounts(home) -> Accounts:
    return Accounts(home)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_user_is_known_by_name_and_password_only(accounts):
    accounts.add("ann", "editor", PASSWORD)
    accounts.add("Bob", "viewer", PASSWORD + " too")
    assert [(found.name, found.role) for found in accounts.all()] == [("ann", "editor"), ("Bob", "viewer")]
    found = accounts.verify("ANN", PASSWORD)
    assert found is not None and found.name == "ann"
    wrong = [
        ("ann", PASSWORD + " too"),
        ("ann", ""),
        ("eve", PASSWORD),
        ("", ""),
        ("ann", "x" * 100_000),
        ("ann", "\udc80"),
    ]
    assert [accounts.verify(*pair) for pair in wrong] == [None] * len(wrong)


def test_what_is_kept_is_an_argon2id_hash_that_nobody_else_can_read(accounts, home):
    before = os.umask(0)
    try:
        accounts.add("ann", "editor", PASSWORD)
        signing_key(home)
    finally:
        os.umask(before)
    text = home.dashboard_users.read_text()
    assert PASSWORD not in text
    assert json.loads(text)["users"][0]["password_hash"].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    names = {"dashboard-users.json", "dashboard-users.lock", "dashboard-key", "dashboard-key.lock"}
    assert {path.name: mode(path) for path in home.folder.iterdir()} == dict.fromkeys(names, 0o600)


def test_a_password_normalises_as_it_is_typed_on_any_keyboard():
    kept = hashed("un café très serré", "ann")
    assert matches("un café très serré", kept)
    assert not matches("un cafe tres serre", kept)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("x" * (SHORTEST - 1), "15 to 256 characters"),
        ("a new one " * 30, "15 to 256 characters"),
        ("123123123123123123", "repeats"),
        ("sweeper-annabell-sweeper", "repeats"),
        ("annabellannabell12", "repeats"),
        ("a password with \udcff in it", "not text"),
    ],
)
def test_a_bad_password_is_refused_and_not_repeated(accounts, home, password, said):
    with pytest.raises(AccessError, match=said) as refused:
        accounts.add("annabell", "viewer", password)
    assert password not in str(refused.value)
    assert not home.dashboard_users.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_be_anything_else_is_refused(accounts, home, name):
    for password in (PASSWORD, None):
        with pytest.raises(AccessError, match="cannot be a user's name"):
            accounts.add(name, "viewer", password)
    assert not home.dashboard_users.exists()


def test_names_are_taken_whatever_their_case_and_oidc_needs_an_address(accounts):
    accounts.add("ann@example.org", "viewer", None)
    with pytest.raises(AccessError, match="exists already"):
        accounts.add("Ann@Example.org", "editor", PASSWORD)
    with pytest.raises(AccessError, match="not an e-mail address"):
        accounts.add("bob", "viewer", None)
    assert accounts.verify("ann@example.org", "") is None
    with pytest.raises(AccessError, match="has no password here"):
        accounts.set_password("ann@example.org", PASSWORD)


def test_another_password_has_another_stamp_and_removed_is_removed(accounts):
    accounts.add("ann", "editor", PASSWORD)
    first = accounts.find("ann")
    accounts.set_password("ann", PASSWORD)
    second = accounts.find("ann")
    assert first and second and first.stamp != second.stamp and second.role == "editor"
    accounts.remove("ann")
    assert accounts.all() == []
    for gone in (accounts.remove, lambda name: accounts.set_password(name, PASSWORD)):
        with pytest.raises(AccessError, match="there is no user 'ann'"):
            gone("ann")


def test_users_added_at_the_same_time_are_all_kept(accounts, home):
    program = (
        "import sys; from pathlib import Path; from sweeper.access import Accounts; from sweeper.paths import Home\n"
        "for n in range(5): Accounts(Home(Path(sys.argv[1]))).add(f'{sys.argv[2]}-{n}@example.org', 'viewer', None)"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, home.folder, f"user{n}"]) for n in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len(accounts.all()) == 20


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o666])
def test_files_that_others_can_read_are_refused(accounts, home, bits):
    accounts.add("ann", "editor", PASSWORD)
    signing_key(home)
    home.dashboard_secrets.write_text(AUTH)
    for path in (home.dashboard_users, home.dashboard_key, home.dashboard_secrets):
        path.chmod(bits)
    for read in (accounts.all, lambda: signing_key(home), lambda: oidc_provider(home)):
        with pytest.raises(AccessError, match="chmod 600"):
            read()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"users": [{"name": "ann"}]}', '{"users": [{"password_hash": "$argon2id$secret"}], "x": 1}'],
)
def test_a_file_that_is_no_list_of_users_is_refused_without_showing_it(accounts, home, text):
    home.folder.mkdir()
    home.dashboard_users.write_text(text)
    home.dashboard_users.chmod(0o600)
    with pytest.raises(AccessError, match="is not what `sweeper users` wrote") as refused:
        accounts.add("ann", "editor", PASSWORD)
    assert "$argon2id" not in "".join(traceback.format_exception(refused.value))
    assert home.dashboard_users.read_text() == text
    home.dashboard_users.write_bytes(b"\xff\xfe")
    with pytest.raises(AccessError, match="cannot be read"):
        accounts.all()
    home.dashboard_users.unlink()
    home.dashboard_users.mkdir(mode=0o700)
    with pytest.raises(AccessError, match="cannot be read"):
        accounts.all()


def test_the_key_is_made_once_and_must_be_whole(home):
    key = signing_key(home)
    assert len(key) == 64 and signing_key(home) == key
    home.dashboard_key.write_text("")
    with pytest.raises(AccessError, match="delete it"):
        signing_key(home)


def test_what_is_missing_for_oidc_is_said_and_secrets_are_not(home):
    assert oidc_provider(home) is None
    home.folder.mkdir()
    home.dashboard_secrets.touch(mode=0o600)
    home.dashboard_secrets.write_text(AUTH)
    found = oidc_provider(home)
    assert found is not None and found.host == "127.0.0.1"
    for before, after, said in [
        ("client_id =", "other =", "client_id"),
        ("/oauth2callback", "/", "must end in /oauth2callback"),
        ("[auth]", "[auth", "is not TOML"),
        ("[auth]", "[other]", "server_metadata_url"),
    ]:
        home.dashboard_secrets.write_text(AUTH.replace(before, after))
        with pytest.raises(AccessError, match=said) as refused:
            oidc_provider(home)
        assert "hidden-from-others" not in "".join(traceback.format_exception(refused.value))
