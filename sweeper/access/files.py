"""Private files: refused if others can read them, and written so that others never could."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from filelock import FileLock

from sweeper.errors import AccessError
from sweeper.files.atomic import write_atomically
from sweeper.paths import Home

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_BYTES = 32


def read_private(path: Path) -> str | None:
    """Return the text of a file, or None where there is none.

    Raises:
        AccessError: If others may read or write it, or it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise AccessError(f"{path} can be read or changed by other users of this machine; `chmod 600 {path}`")
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{path} cannot be read ({type(error).__name__}); is it a text file of yours?") from error


def locked(path: Path) -> FileLock:
    """Return the lock to hold while changing a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"), mode=0o600)


def signing_key(home: Home) -> str:
    """Return the random key that signs the sessions of a home, making it if there is none.

    It is stored, so that a restart of the dashboard signs no user out; deleting the file signs all users out.
    """
    path = home.dashboard_key
    key = read_private(path)
    if key is None:
        with locked(path):
            key = read_private(path)
            if key is None:
                key = secrets.token_hex(_KEY_BYTES)
                write_atomically(path, key, private=True)
    if len(key) < 2 * _KEY_BYTES:
        raise AccessError(f"{path} is not a key that sweeper wrote; delete it to have a new one made")
    return key
