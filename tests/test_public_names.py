"""The names of ``import sweeper``, which costs nothing until they are used."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sweeper


def test_all_public_names_exist():
    for name in sweeper.__all__:
        assert getattr(sweeper, name) is getattr(sweeper, name)
        assert name in dir(sweeper)
    assert sweeper.run_study.__module__ == "sweeper.study.run"
    assert issubclass(sweeper.SweeperError, Exception)


def test_type_checkers_are_told_of_the_same_names():
    stub = ast.parse(Path(sweeper.__file__).with_suffix(".pyi").read_text())
    imports = [each for each in stub.body if isinstance(each, ast.ImportFrom)]
    told = {alias.asname: each.module for each in imports for alias in each.names}
    assert set(told) | {"__version__"} == set(sweeper.__all__)
    for name, module in told.items():
        assert getattr(importlib.import_module(module), name) is getattr(sweeper, name)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="'sweeper' has no attribute 'run_studdy'"):
        _ = sweeper.run_studdy
    with pytest.raises(ImportError):
        exec("from sweeper import run_studdy")


def test_importing_sweeper_imports_nothing_heavy():
    probe = "import sys; before = set(sys.modules); import sweeper; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sweeper"]
    probe = "import sys, sweeper; sweeper.load_study; print('torch' in sys.modules, 'optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "setting, expected",
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, "None"),
        ({"KMP_BLOCKTIME": "0"}, "None"),
    ],
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise(setting, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | setting
    probe = "import os, sweeper; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
