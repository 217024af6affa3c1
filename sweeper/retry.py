"""Retries of what a full disk or an unreachable database made fail.

The runner of a study declares its policy with ``waiting``. From then on, in that thread, every ``retried`` function is
tried again every few seconds while the disk is full or read-only, a quota is used up, the database stays locked, or its
server is gone. Without a policy such a fault is raised at once, as it is for commands that only read.

Only what may be done twice is ``retried``: a transaction, which is stored in full or not at all, and a file that is
written elsewhere and then renamed. A transaction that must not be stored twice checks ``is_retry``.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NoReturn, ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from sweeper.errors import StudyInterrupted
from sweeper.faults import driver_message, passing

P = ParamSpec("P")
T = TypeVar("T")

FIRST_S, LONGEST_S = 0.5, 5.0
"""The delay before the first retry; it doubles each time, up to the longest."""

_POLL_S = 0.1
"""How often to check for a stop request meanwhile."""


class RetryPolicy:
    """What the runner of a study does about a fault that may pass.

    Args:
        note: Tells the user.
        stopped: Whether the user has asked to stop.
        on_waited: Called after each wait with its length in seconds.
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
        """Return what ``attempt`` returns, retrying it for as long as its fault may pass.

        Raises:
            StudyInterrupted: If the user asks to stop meanwhile.
            Exception: What ``attempt`` raised that does not pass by waiting.
        """
        try:
            return attempt()  # without tenacity, which takes as long as a short query
        except Exception as error:
            if passing(error) is None:
                raise
            return self._retry(attempt, error)

    def _retry(self, attempt: Callable[[], T], error: Exception) -> T:
        announced, failed = "", [error]

        def attempt_again() -> T:
            if failed:
                raise failed.pop()
            return attempt()

        def announce(state: RetryCallState) -> None:
            nonlocal announced
            found, wrong, remedy = _fault(state)
            if wrong != announced:
                self._note(f"paused: {wrong} ({driver_message(found)}); {remedy}. It resumes by itself, Ctrl-C stops")
                announced = wrong

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and passing(error) is not None),
            stop=lambda state: self._stopped(),
            wait=wait_exponential(multiplier=FIRST_S, max=LONGEST_S),
            sleep=self._sleep,
            before=_mark_retry,
            before_sleep=announce,
            retry_error_callback=_interrupt,
        )
        try:
            result = retrying(attempt_again)
        finally:
            _current.is_retry = False
        waited = time.monotonic() - retrying.statistics["start_time"]
        self._on_waited(waited)
        self._note(f"resumed after {waited:.0f} s")
        return result

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopped():
            time.sleep(_POLL_S)


def _fault(state: RetryCallState) -> tuple[BaseException, str, str]:
    error = state.outcome.exception() if state.outcome else None
    fault = passing(error) if error else None
    assert error is not None and fault is not None
    return error, *fault


def _mark_retry(state: RetryCallState) -> None:
    _current.is_retry = state.attempt_number > 1


def _interrupt(state: RetryCallState) -> NoReturn:
    error, wrong, _ = _fault(state)
    text = f"stopped while {wrong} ({driver_message(error)}); `sweeper resume` continues"
    raise StudyInterrupted(text) from error


class _Current(threading.local):
    policy: RetryPolicy | None = None
    is_retry: bool = False


_current = _Current()


@contextmanager
def waiting(policy: RetryPolicy | None) -> Iterator[None]:
    """Retry what is ``retried`` by this policy in this thread for the block; None raises at once."""
    before, _current.policy = _current.policy, policy
    try:
        yield
    finally:
        _current.policy = before


def is_waiting() -> bool:
    """Return whether this thread has a retry policy."""
    return _current.policy is not None


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Retry a function that may be called again after it failed, in threads that have a policy."""

    @functools.wraps(function)
    def retrying(*args: P.args, **kwargs: P.kwargs) -> T:
        policy = _current.policy
        if policy is None:
            return function(*args, **kwargs)
        with waiting(None):  # what it calls fails at once, so that the whole is tried again
            return policy(lambda: function(*args, **kwargs))

    return retrying


def retried_methods(*also: str, unless: Callable[[Any], bool] = lambda thing: False) -> Callable[[type[T]], type[T]]:
    """Make every public method of a class ``retried``, inherited ones included: each must be one transaction.

    Args:
        also: Private methods that are called from outside.
        unless: Whether an object is within a larger transaction, which has to be retried as a whole.
    """

    def decorate(cls: type[T]) -> type[T]:
        for name in dir(cls):
            method = inspect.getattr_static(cls, name)
            if isinstance(method, FunctionType) and (name in also or not name.startswith("_")):
                setattr(cls, name, _retried_unless(method, unless))
        return cls

    return decorate


def _retried_unless(method: Callable[..., Any], unless: Callable[[Any], bool]) -> Callable[..., Any]:
    again = retried(method)

    @functools.wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return (method if unless(self) else again)(self, *args, **kwargs)

    return call


def is_retry() -> bool:
    """Return whether the current call failed before.

    Its effect may be stored already: a server can be lost after it stored a transaction and before it confirmed it.
    """
    return _current.is_retry
