"""Tests that ask one thing of many kinds: a few of them every time, all of them with ``pytest -m long``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_long(every: Iterable[Any], *short: Any) -> list[Any]:
    """Return parameters of which all but ``short`` are marked as long.

    Raises:
        ValueError: If one of ``short`` is none of them.
    """
    every = list(every)
    if unknown := [each for each in short if each not in every]:
        raise ValueError(f"{unknown} are none of {every}")
    return [pytest.param(each, marks=() if each in short else pytest.mark.long) for each in every]
