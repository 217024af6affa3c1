"""Threads that training uses, by what other processes leave free."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sweeper.training import device


@pytest.mark.parametrize(
    "cores, taken, threads",
    [
        (2, 0.0, 2),
        (2, 0.4, 2),
        (2, 1.0, 1),
        (2, 1.3, 1),
        (2, 1.9, 2),
        (2, 2.0, 2),
        (16, 4.2, 12),
        (16, 16.0, 16),
        (1, 1.0, 1),
    ],
)
def test_free_cores_are_used_and_all_of_them_where_none_is(cores, taken, threads):
    assert device.threads_for(cores, taken) == threads


@pytest.fixture
def chosen(monkeypatch):
    """Return the decision on a machine of 8 cores of which others take 3, and what torch was told."""
    told = []
    monkeypatch.setattr(device, "_LOOK_S", 0.0)
    monkeypatch.setattr(device, "OtherLoad", lambda: SimpleNamespace(cores=lambda: 3.0))
    monkeypatch.setattr(device, "cpus", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    return lambda: (device.use_free_cores.__wrapped__(), told)


def test_threads_follow_the_free_cores_and_the_user_is_told(chosen, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    said, told = chosen()
    assert told == [5]
    assert said == "5 of 8 cores are used: 3.0 are taken by other processes (OMP_NUM_THREADS overrides)"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_the_user_sets_is_left_alone(chosen, monkeypatch, name):
    monkeypatch.setenv(name, "3")
    assert chosen() == (None, [])
