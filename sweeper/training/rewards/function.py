"""The user's own reward functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sweeper.config.functions import find_module
from sweeper.config.rewards import FunctionReward, RewardSources
from sweeper.errors import RewardError
from sweeper.training.rewards import Call


def own_function(reward: FunctionReward, sources: RewardSources | None, device: str) -> Call:
    """Return the function, imported and called with the study file's folder first on the path."""
    assert sources is not None
    folder = sources.study_folder
    module_name, _, name = reward.function.partition(":")
    try:
        function = getattr(_imported(module_name, folder), name)
    except Exception as error:  # the module is the user's, and may do anything while it is imported
        raise RewardError(f"reward {reward.function} cannot be imported: {type(error).__name__}: {error}") from error

    def call(**arguments: Any) -> Sequence[Any]:
        try:
            with _first_on_path(folder):  # it may import what lies beside it only now
                found: Sequence[Any] = function(**arguments)
        except Exception as error:
            raise RewardError(f"reward {reward.function} failed: {type(error).__name__}: {error}") from error
        return found

    return call


def _imported(name: str, folder: Path) -> ModuleType:
    """Import a module; one of the same name from another study's folder gives way."""
    top = name.partition(".")[0]
    spec, loaded = find_module(top, folder), sys.modules.get(top)
    if spec is not None and loaded is not None and getattr(loaded, "__file__", None) != spec.origin:
        for other in [other for other in sys.modules if other == top or other.startswith(f"{top}.")]:
            del sys.modules[other]
    with _first_on_path(folder):
        return import_module(name)


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's module may have taken it off itself
            sys.path.remove(str(folder))
