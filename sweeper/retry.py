"""Waiting where the disk is full or the database cannot be reached, until it can go on.

Whoever runs a study says so with ``waiting``. From then on in that thread, what is marked as ``retried`` is tried
again every few seconds while the disk is full or read-only, a quota is used up, the database is locked for long, or its
server is gone. Elsewhere such a fault is raised at once, as it is for those who only look.

Only what may be done twice is marked: a transaction, which is stored in full or not at all, and a file that is written
beside its place and then put there. A transaction that must not be stored twice asks ``is_retry``.
"""

from __future__ import annotations

import errno
import functools
import inspect
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from sweeper.errors import StudyInterrupted

P = ParamSpec("P")
T = TypeVar("T")

FIRST_S, LONGEST_S = 0.5, 5.0
"""How long to wait before the next attempt: twice as long each time, up to the longest."""

_GLANCE_S = 0.1
"""How often to look whether the user stops, meanwhile."""

_DISK = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or have the quota raised"),
    errno.EROFS: ("the disk is read-only", "mount it for writing"),
    errno.EIO: ("the disk fails", "check its health"),
    errno.ESTALE: ("the network disk is gone", "mount it again"),
    errno.EHOSTDOWN: ("the network disk is gone", "mount it again"),
    errno.ENOTCONN: ("the network disk is gone", "mount it again"),
    errno.ETIMEDOUT: ("the network disk does not answer", "check the network"),
}
"""What is wrong and what to do about it, by error number."""

_SQLITE = {
    "SQLITE_FULL": _DISK[errno.ENOSPC],
    "SQLITE_READONLY": ("the database may not be written", "make its file, its folder and its disk writable"),
    "SQLITE_IOERR": ("the database cannot be read or written", "check the disk: its space, its quota and its health"),
    "SQLITE_CANTOPEN": ("the database cannot be opened", "check that its disk is there, and has space"),
    "SQLITE_BUSY": ("another process keeps the database locked", "let it finish, or end it"),
    "SQLITE_LOCKED": ("another connection keeps the database locked", "let it finish"),
}
"""The same, by what SQLite's names of errors begin with."""

_HELD = ("another process holds the study", "let that one go on or end it")
_SERVER = ("the database server cannot be reached", "start it, or check the network")
_SERVER_STATES = {
    "08": _SERVER,
    "53": ("the database server has no room", "give it disk, memory or connections"),
    "55P03": ("another process keeps the database locked", "let it finish, or end it"),
    "57P": _SERVER,
}
"""The same, by what PostgreSQL's error codes begin with."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, safetensors among them, tell an error number."""


class RetryPolicy:
    """What the runner of a study does about a fault that may pass.

    Args:
        note: Tells the user.
        stopped: Whether the user has asked to stop.
        on_waited: Told of each wait how long it was, in seconds.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        stopped: Callable[[], bool],
        on_waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._note = note
        self._stopped = stopped
        self._on_waited = on_waited

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns, once it does.

        Raises:
            StudyInterrupted: If the user asks to stop while it does not.
            Exception: What ``attempt`` raised that does not pass by waiting.
        """
        said, begun, pause = "", time.monotonic(), FIRST_S
        while True:
            try:
                result = attempt() if not said else _again(attempt)
            except Exception as error:
                fault = passing(error)
                if fault is None:
                    raise
                wrong, remedy = fault
                told = _in_a_line(error)
                if self._stopped():
                    raise StudyInterrupted(f"stopped while {wrong} ({told}); `sweeper resume` goes on") from error
                if wrong != said:
                    self._note(f"paused: {wrong} ({told}); {remedy}. It goes on by itself then, Ctrl-C stops")
                    said = wrong
                self._wait(pause)
                pause = min(LONGEST_S, 2 * pause)
                continue
            if said:
                waited = time.monotonic() - begun
                self._on_waited(waited)
                self._note(f"goes on after {waited:.0f} s")
            return result

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopped():
            time.sleep(_GLANCE_S)


class _Current(threading.local):
    patience: RetryPolicy | None = None
    again: bool = False


_current = _Current()


@contextmanager
def waiting(patience: RetryPolicy) -> Iterator[None]:
    """Let what is marked as ``retried`` wait in this thread for the block."""
    before, _current.patience = _current.patience, patience
    try:
        yield
    finally:
        _current.patience = before


def is_waiting() -> bool:
    """Tell whether somebody waits in this thread for what may pass."""
    return _current.patience is not None


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that may be called again where it failed: it waits where somebody is ``waiting``."""

    @functools.wraps(function)
    def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        patience = _current.patience
        if patience is None:
            return function(*args, **kwargs)
        with _impatient():  # what it calls fails at once, so that the whole is tried again
            return patience(lambda: function(*args, **kwargs))

    return patient


def is_retry() -> bool:
    """Tell whether the call under way was tried before, and failed.

    What it was to store may be stored: a server may be lost after it stored a transaction, and before it said so.
    """
    return _current.again


def _again(attempt: Callable[[], T]) -> T:
    before, _current.again = _current.again, True
    try:
        return attempt()
    finally:
        _current.again = before


@contextmanager
def _impatient() -> Iterator[None]:
    before, _current.patience = _current.patience, None
    try:
        yield
    finally:
        _current.patience = before


def make_patient(thing: Any, *also: str, unless: Callable[[], bool] = lambda: False) -> None:
    """Mark every public method of an object, each of which is one transaction, as ``retried``.

    Args:
        thing: The object.
        also: Methods that are not public, and called from elsewhere all the same.
        unless: Whether calls are parts of a larger transaction now: then that is what has to be tried again.
    """
    for name in dir(type(thing)):
        asked = name in also or not name.startswith("_")
        if asked and isinstance(inspect.getattr_static(type(thing), name), FunctionType):
            setattr(thing, name, functools.partial(_call, thing, name, unless))


def _call(thing: Any, name: str, unless: Callable[[], bool], /, *args: Any, **kwargs: Any) -> Any:
    method = getattr(type(thing), name)
    return method(thing, *args, **kwargs) if unless() else retried(method)(thing, *args, **kwargs)


def passing(error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong and what to do, of a fault that may pass by waiting; None of every other."""
    return next(filter(None, map(_of_one, _causes(error))), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what lies behind it, the innermost last."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__


def _in_a_line(error: BaseException) -> str:
    """Return what the driver or the system said, without the statement and the links that SQLAlchemy puts around it."""
    behind = (getattr(cause, "orig", None) for cause in _causes(error))
    driver = next((original for original in behind if original is not None), error)
    return " ".join(str(driver).split()) or type(driver).__name__


def _of_one(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, TimeoutError) and error.errno is None:
        return _HELD
    if isinstance(error, ConnectionError) or getattr(error, "connection_invalidated", False):
        return _SERVER
    if isinstance(error, OSError) and error.errno in _DISK:
        return _DISK[error.errno]
    if match := _OS_ERROR.search(str(error)):
        return _DISK.get(int(match[1]))
    name = getattr(error, "sqlite_errorname", None)
    if isinstance(name, str):
        return next((fault for beginning, fault in _SQLITE.items() if name.startswith(beginning)), None)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return next((fault for beginning, fault in _SERVER_STATES.items() if state.startswith(beginning)), None)
    if type(error).__module__.startswith("psycopg") and type(error).__name__ == "OperationalError":
        return _SERVER  # the connection failed before the server could say why
    return None
