"""Optuna's parts that it calls experimental, used knowingly: the version is pinned to one minor release."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning


@contextmanager
def accept_experimental() -> Iterator[None]:
    """Keep Optuna from warning about each experimental part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
