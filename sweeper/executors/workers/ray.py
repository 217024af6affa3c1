"""Workers on the nodes of a Ray cluster, each an actor with resources of its own.

Ray places the actors and says which of them is no more; the study itself is in the database, as everywhere.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psutil

from sweeper.config.executor import RayExecutorConfig
from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialSpec
from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError, HardwareError
from sweeper.executors.artifact_store import SHARED, ArtifactStore, NoArtifactStore, ObjectStore, keep_study
from sweeper.executors.base_models import BaseModelCache
from sweeper.executors.context import StudyContext
from sweeper.executors.workers.coordinator import Coordinator
from sweeper.executors.workers.process import WorkerJob, WorkerStatus
from sweeper.executors.workers.ray_actor import NodeJob, NodeWorker, shared_word
from sweeper.files.atomic import write_atomically
from sweeper.machine import this_host
from sweeper.training.base_model import BaseModel

_LOG = logging.getLogger(__name__)

_ROOM_S = 3.0
"""How often to look whether nodes have joined."""

_END_S = 5.0
_STORE_BYTES = 100 << 20
"""What goes through Ray's object store is a few words; its default is a third of the machine's memory."""


class RayExecutor:
    """Runs a study's trials in workers that a Ray cluster has room for; each packs those that it takes."""

    def __init__(self) -> None:
        self._bases = BaseModelCache()

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one before's."""
        return self._bases.of(context, spec)

    def run(self, context: StudyContext) -> None:
        """Run trials until no worker finds any, or the user asks to stop.

        Raises:
            HardwareError: If Ray is not installed, or the cluster cannot be reached or used.
        """
        if context.stop.is_set:
            return
        executor = context.config.executor
        assert isinstance(executor, RayExecutorConfig)
        if executor.artifacts != SHARED:
            keep_study(context.artifact_store, context.paths.folder)
        with connected(executor) as ray, _word(context, executor) as word:
            Coordinator(context, Cluster(context, executor, ray, word)).run()


def artifact_store_of(config: StudyConfig, address: Address, created_at: datetime) -> ArtifactStore:
    """Return where the workers of a study exchange files, if they have homes of their own.

    Raises:
        DatabaseError: If they cannot: it is a file.
    """
    executor = config.executor
    if not isinstance(executor, RayExecutorConfig) or executor.artifacts == SHARED:
        return NoArtifactStore()
    if not isinstance(address, PostgresUrl):
        raise DatabaseError(
            f"executor.artifacts is {executor.artifacts}, so that every node has a home of its own, but the database "
            "is an SQLite file in one of them; use storage: postgresql+psycopg://..., or artifacts: shared"
        )
    return ObjectStore(f"{executor.artifacts.rstrip('/')}/{config.name}-{created_at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}")


@contextmanager
def connected(executor: RayExecutorConfig) -> Iterator[Any]:
    """Connect to the cluster, or start one on this machine for as long as the block takes; yield the library.

    Raises:
        HardwareError: If that is not possible.
    """
    ray = _library()
    if ray.is_initialized():  # by whoever called sweeper from Python
        yield ray
        return
    _require_safe(executor.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of the cluster
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray 2.60 asks to be set, lest it warns
    try:
        with _own_signals():
            _init(ray, executor.address)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise HardwareError(
            f"executor.address is {executor.address}, and Ray says: {_first_line(error)}; `ray status` shows whether "
            "the cluster runs"
        ) from error
    try:
        with _quiet():
            yield ray
    finally:
        with _own_signals():
            ray.shutdown()


def _init(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if address == "auto":
        try:
            ray.init(address="auto", **quiet)
            return
        except ConnectionError:
            if os.environ.get("RAY_ADDRESS"):  # the cluster that was meant is not there
                raise
    if address in ("auto", "local"):
        ray.init(address="local", object_store_memory=_STORE_BYTES, **quiet)
    else:
        ray.init(address=address, **quiet)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's news of its nodes off standard output, whatever ``log_to_driver`` is: results are printed there."""
    worker: Any = importlib.import_module("ray._private.worker")
    former = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, ignore_prefix: _LOG.debug("%s", data["lines"])
    try:
        yield
    finally:
        worker.print_to_stdstream = former


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise HardwareError("executor: ray needs the package ray: pip install 'sweeper[ray]'") from error


def _require_safe(address: str) -> None:
    """Refuse to talk to another machine's cluster that asks nobody who they are: whoever answers there runs code here.

    Raises:
        HardwareError: If it is one.
    """
    if address in ("auto", "local") or os.environ.get("RAY_AUTH_MODE") == "token" or _is_here(address):
        return
    raise HardwareError(
        f"executor.address is {address}, on another machine, and without a token whoever answers there could run code "
        "here; start sweeper on a node of the cluster with `address: auto`, or set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN_PATH here and on every node"
    )


def _is_here(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    with suppress(OSError):
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
        mine = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
        return all(ipaddress.ip_address(name).is_loopback or name in mine for name in found)
    return False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from taking the signals over by which a study is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _word(context: StudyContext, executor: RayExecutorConfig) -> Iterator[str | None]:
    """Write a word into the home, which every node has to find there."""
    if executor.artifacts != SHARED:
        yield None
        return
    word, path = secrets.token_hex(16), shared_word(context.paths.home, context.config.name)
    write_atomically(path, word)
    try:
        yield word
    finally:
        path.unlink(missing_ok=True)


class Cluster:
    """A Ray cluster as places for workers.

    Args:
        context: The study.
        executor: What the study says of its workers.
        ray: The library, connected.
        word: What nodes have to find in the home; None where each has a home of its own.
        actor: What keeps a worker on a node.
    """

    def __init__(
        self,
        context: StudyContext,
        executor: RayExecutorConfig,
        ray: Any,
        word: str | None,
        actor: type[NodeWorker] = NodeWorker,
    ) -> None:
        self._kind = actor
        self._context = context
        self._executor = executor
        self._ray = ray
        self._word = word
        self._started: dict[int, RemoteWorker] = {}
        self._looked = -_ROOM_S
        self._room = 0
        database = context.database.address  # without a password, which is for each node's environment to hold
        self._storage = str(database) if isinstance(database, PostgresUrl) and not database.has_password else None
        self._need = {"CPU": executor.cpus_per_worker, "GPU": executor.gpus, **executor.resources}

    def size(self) -> int:
        """Return how many workers the study asks for, or the cluster has room for now; one waits where it has none."""
        if time.monotonic() - self._looked >= _ROOM_S:
            self._looked = time.monotonic()
            self._room = room(self._need, self._ray.nodes())
            if self._room == 0:
                needed = ", ".join(f"{amount:g} {name}" for name, amount in self._need.items() if amount)
                self._context.listener.stage(f"waiting for a node with {needed}")
        return max(1, self._room) if self._executor.workers == "auto" else self._executor.workers

    def name(self, place: int) -> str:
        """Return the worker's number, and its node where it has one by now."""
        worker = self._started.get(place)
        return f"worker {place}" + (f" on {worker.node}" if worker is not None and worker.node else "")

    def start(self, place: int) -> RemoteWorker:
        """Let Ray place a worker; it waits there while the cluster has no room."""
        job = NodeJob(
            worker=WorkerJob(
                study=self._context.config.name,
                home=self._context.paths.home,
                device="cuda:0" if self._executor.gpus else "cpu",  # the first of those that Ray lets it see
                n_workers=self.size(),
                artifacts=store.url if isinstance(store := self._context.artifact_store, ObjectStore) else None,
                storage=self._storage,
            ),
            log=f"worker-{place}",
            word=self._word,
            host=None if isinstance(self._context.database.address, PostgresUrl) else this_host(),
        )
        actor = self._ray.remote(self._kind).options(
            num_cpus=self._executor.cpus_per_worker,
            num_gpus=self._executor.gpus,
            resources=self._executor.resources,
            max_restarts=0,  # that is for the coordinator, which knows why
        )
        self._started[place] = RemoteWorker(self._ray, actor.remote(job.model_dump(mode="json")))
        return self._started[place]


def room(need: dict[str, float], nodes: Sequence[dict[str, Any]]) -> int:
    """Return how many workers fit on the nodes of a cluster that are up, whoever else uses them."""
    asked = {name: amount for name, amount in need.items() if amount > 0}
    return sum(
        min(int(node["Resources"].get(name, 0.0) / amount + 1e-9) for name, amount in asked.items())
        for node in nodes
        if node["Alive"]
    )


class RemoteWorker:
    """A worker on a node, as the coordinator sees it; it is asked again as soon as it has answered.

    Attributes:
        node: The name of its node; empty while Ray has no room for it.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self.node = ""
        self._ray = ray
        self._actor = actor
        self._where = actor.where.remote()
        self._asked = actor.pulse.remote()
        self._last = WorkerStatus(waits=True)
        self._reachable = False
        self._told = False

    def pulse(self) -> WorkerStatus:
        """Return the last answer; what was said is in it once."""
        if not self._ray.wait([self._asked], timeout=0)[0]:
            return self._last.model_copy(update={"notes": (), "ended": 0})
        exceptions = self._ray.exceptions
        try:
            self._last = WorkerStatus.model_validate(self._ray.get(self._asked))
            self._reachable = True
            self.node = self.node or self._ray.get(self._where)
        except exceptions.ActorUnavailableError:  # what was sent meanwhile is lost
            self._last = self._last.model_copy(update={"notes": (), "ended": 0})
            if self._told:
                self.ask_to_stop()
        except exceptions.RayActorError as error:
            return self._gone(error)
        except exceptions.RayTaskError as error:
            return WorkerStatus(exit_code=1, tail=str(error.cause))
        self._asked = self._actor.pulse.remote()
        return self._last

    def ask_to_stop(self) -> None:
        """Ask it to put its trials on disk and leave; one that has not answered yet hears it as soon as it can."""
        self._told = True
        self._actor.ask_to_stop.remote()

    def end(self) -> None:
        """End the worker and its actor, which gives its resources back."""
        if self._reachable:
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(self._actor.end.remote(), timeout=_END_S)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)

    def _gone(self, error: Exception) -> WorkerStatus:
        """Return how an actor ended that ended by itself: with its node, which is nobody's fault, or alone."""
        self._last = WorkerStatus(exit_code=1, lost="its node has died" in str(error), tail=_first_line(error))
        self._reachable = False
        return self._last


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
