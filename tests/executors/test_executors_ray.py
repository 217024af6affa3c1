"""Workers on a real Ray cluster of two nodes, both on this machine, one of which dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sweeper.config.executor import RayExecutorConfig
from sweeper.config.trial import Outcome
from sweeper.errors import DatabaseError, HardwareError
from sweeper.executors.listener import Listener
from sweeper.executors.workers import ray as rays
from sweeper.executors.workers.coordinator import Coordinator
from sweeper.executors.workers.process import STOPPED, WorkerJob, WorkerStatus
from sweeper.executors.workers.ray import Cluster, RayExecutor, RemoteWorker, room
from sweeper.executors.workers.ray_actor import NodeJob, NodeWorker, obstacle, shared_word, wait_for_memory
from sweeper.hardware import Gpu
from sweeper.machine import this_host
from sweeper.paths import Home
from sweeper.store import Database

pytestmark = pytest.mark.xdist_group("ray")

STANDIN = Path(__file__).with_name("standin_worker.py")


class Noting(Listener):
    def __init__(self):
        self.notes, self.stages = [], []

    def note(self, text):
        self.notes.append(text)

    def stage(self, text, fraction=None):
        self.stages.append(text)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script"

    def write(*lines):
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


@pytest.fixture
def on_cluster(begin, two_nodes):
    """Return what begins a study on the cluster, whose workers do what a script says; yields study and cluster."""

    @contextmanager
    def connect(script, stop=None, **parts):
        listener = Noting()
        executor = {"kind": "ray", "device": "cpu", "address": two_nodes.address, **parts}
        context = begin(listener=listener, stop=stop, executor=executor)
        listener.notes.clear()

        class Standin(NodeWorker):  # a class of a function, so that it travels to the nodes as a value
            def __init__(self, job, command=(sys.executable, str(STANDIN)), script=str(script)):
                os.environ["SCRIPT"] = script
                from sweeper.executors.workers import process as workers

                workers.COMMAND = command
                super().__init__(job)

        with rays.connected(context.config.executor) as ray, rays._word(context, context.config.executor) as word:
            yield context, Cluster(context, context.config.executor, ray, word, Standin)

    return connect


@pytest.fixture
def conduct(on_cluster):
    """Run a study on the cluster; return what was noted."""

    def run(script, stop=None, **parts):
        with on_cluster(script, stop, **parts) as (context, cluster):
            Coordinator(context, cluster).run()
        return context.listener

    return run


def started(script):
    path = script.with_suffix(".started")
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def until(true, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_a_dead_worker_is_followed_by_another_and_nothing_is_printed(conduct, script, capfd):
    path = script("note=here trial=0 ended=0 die=3", "")
    listener = conduct(path, workers=1)
    assert len(started(path)) == 2
    host = os.uname().nodename
    assert listener.notes == [
        f"worker 0 on {host}: here on cpu",
        f"worker 0 on {host} ended with exit code 3: something broke; another one is started",
    ]
    assert all(is_gone(pid) for pid in started(path))
    assert capfd.readouterr().out == ""


def test_a_lost_node_ends_nothing_and_a_new_one_is_used(conduct, script, two_nodes, capfd):
    path = script("trial=0 stop", "trial=1 stop", "trial=2 stop")
    stop = rays_stop()
    result = []
    study = threading.Thread(target=lambda: result.append(conduct(path, stop=stop)))
    study.start()
    until(lambda: len(started(path)) == 2)
    two_nodes.kill_one()
    until(lambda: any(is_gone(pid) for pid in started(path)))  # with its node, before anyone else notices
    two_nodes.add_one()
    until(lambda: len(started(path)) == 3)
    stop.set()
    study.join(60)
    (listener,) = result
    (lost,) = (note for note in listener.notes if "was lost" in note)
    assert lost.endswith("its trials are gone on with elsewhere")
    assert all(is_gone(pid) for pid in started(path))
    assert capfd.readouterr().out == ""  # the result is printed there, and Ray tells of its nodes


def test_a_worker_that_has_not_answered_yet_hears_of_a_stop(on_cluster, script):
    with on_cluster(script("trial=0 stop")) as (_, cluster):
        worker = cluster.start(0)
        worker.ask_to_stop()
        until(lambda: worker.pulse().exit_code == STOPPED)
        worker.end()


def test_a_stop_that_was_lost_with_the_connection_is_said_again():
    """By hand: no connection to a node breaks for just that moment on request."""
    said = []

    class Unavailable(Exception):
        pass

    class Call:
        def __init__(self, name):
            self.remote = lambda: said.append(name) or name

    class Actor:
        where, pulse, ask_to_stop = Call("where"), Call("pulse"), Call("stop")

    class Exceptions:
        ActorUnavailableError = Unavailable
        RayActorError = RayTaskError = ZeroDivisionError

    class Library:
        exceptions = Exceptions

        def wait(self, asked, timeout):
            return asked, []

        def get(self, asked):
            if said.count("pulse") < 3:
                raise Unavailable
            return WorkerStatus().model_dump(mode="json") if asked == "pulse" else "node"

    worker = RemoteWorker(Library(), Actor())
    worker.pulse()
    assert "stop" not in said
    worker.ask_to_stop()
    worker.pulse()
    assert said.count("stop") == 2
    worker.pulse()
    assert said.count("stop") == 2


def rays_stop():
    from sweeper.executors.stop_request import StopRequest

    return StopRequest()


def test_workers_that_there_is_no_room_for_are_not_waited_for(conduct, script):
    path = script("trial=0 others=2 ended=0", "trial=1 others=2 ended=1")
    listener = conduct(path, workers=3)
    assert len(started(path)) in (2, 3)  # the third has room once another has left
    assert not listener.stages


def test_a_study_waits_for_a_node_that_has_what_it_needs(conduct, script, two_nodes):
    path = script("")
    stop = rays_stop()
    threading.Timer(4, stop.set).start()
    listener = conduct(path, stop=stop, resources={"accelerator": 1})
    assert listener.stages[0] == "waiting for a node with 1 CPU, 1 accelerator"
    assert started(path) == []


LONG = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3], "batch_size": 1, "epochs": 16}


@pytest.mark.long
def test_a_study_on_nodes_with_homes_of_their_own_survives_the_loss_of_one(study_file, server, two_nodes, tmp_path):
    """From the study file to the verdict: a database on a server, files through a store, and a node that dies."""
    file = study_file(
        storage=server.written,
        search={"space": LONG, "n_trials": 4, "pruner": "none", "confirm": 0},
        executor={
            "kind": "ray",
            "address": two_nodes.address,
            "artifacts": f"file://{tmp_path / 'store'}",
            "slots": 1,
            "checkpoint_s": 0.5,
        },
        evaluation={"points": 2},
    )
    command = [sys.executable, "-m", "sweeper", "run", str(file.path), "--json"]
    study = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: both_train(server) or study.poll() is not None, 240)
        two_nodes.kill_one()
        two_nodes.add_one()
        out, errors = study.communicate(timeout=400)
    finally:
        study.kill()
    assert study.returncode == 0, errors
    assert "its trials are gone on with elsewhere" in errors
    assert json.loads(out)["study"] == "tiny"  # nothing but the result is on standard output
    with Database.open(server, create=False) as database:
        trials = database.trials.all("tiny")
        ended = [trial for trial in trials if trial.outcome is Outcome.COMPLETE]
        assert len(ended) == 4  # neither lost nor counted twice
        assert {trial.outcome for trial in trials} <= {Outcome.COMPLETE, Outcome.INTERRUPTED}
        assert database.leases.all("tiny") == ()
        assert database.workers.all("tiny") == ()
        for trial in ended:
            points = database.metrics.get("tiny", number=trial.number, name="loss")
            assert [point.step for point in points] == list(range(1, trial.total_steps + 1))
    assert Home.current().study("tiny").report.is_file()


def both_train(server):
    """Tell whether two trials have taken steps."""
    if not Database.exists(server):
        return False
    with Database.open(server, create=False) as database:
        if database.studies.find("tiny") is None:
            return False
        return sum(trial.outcome is None and trial.steps > 0 for trial in database.trials.all("tiny")) == 2


# ---- without a cluster


def test_room_counts_what_every_node_has():
    node = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}}
    gone = {**node, "Alive": False}
    assert room({"CPU": 1.0, "GPU": 1.0}, [node, node, gone]) == 4
    assert room({"CPU": 3.0, "GPU": 0.5}, [node]) == 2
    assert room({"CPU": 1.0, "GPU": 0.0}, [node]) == 8
    assert room({"CPU": 1.0, "big": 1.0}, [node]) == 0
    assert room({"CPU": 0.1}, [{"Alive": True, "Resources": {"CPU": 0.3}}]) == 3


def test_a_cluster_elsewhere_must_ask_for_a_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for address in ("auto", "local", "127.0.0.1:6379", "localhost:6379", "[::1]:6379"):
        rays._require_safe(address)
    with pytest.raises(HardwareError, match=r"on another machine, and without a token .*RAY_AUTH_MODE=token"):
        rays._require_safe("192.0.2.77:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    rays._require_safe("192.0.2.77:6379")


def test_without_ray_it_is_said_what_to_install(begin, monkeypatch):
    context = begin(executor={"kind": "ray", "device": "cpu"})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HardwareError, match=r"pip install 'sweeper\[ray\]'"):
        RayExecutor().run(context)


@pytest.fixture
def job(tmp_path):
    def make(**parts):
        worker = WorkerJob(study="tiny", home=tmp_path / "home", device="cpu")
        return NodeJob(**{"worker": worker, "log": "worker-0", "word": None, "host": None, **parts})

    return make


def test_a_node_refuses_a_home_that_is_another_folder_there(job):
    path = shared_word(job().worker.home, "tiny")
    path.parent.mkdir(parents=True)
    assert obstacle(job()) is None
    assert isinstance(obstacle(job(word="here")), HardwareError)
    path.write_text("elsewhere")
    found = obstacle(job(word="here"))
    assert "is not the same folder on" in str(found)
    assert "artifacts: s3://bucket/prefix" in str(found)
    path.write_text("here")
    assert obstacle(job(word="here")) is None


def test_a_node_refuses_a_database_that_is_a_file_of_another_machine(job):
    assert obstacle(job(host=this_host())) is None
    found = obstacle(job(host="somewhere else"))
    assert isinstance(found, DatabaseError)
    assert "postgresql+psycopg://" in str(found)


def test_a_worker_waits_until_the_memory_of_the_dead_one_is_free(monkeypatch):
    monkeypatch.setattr("sweeper.executors.workers.ray_actor._LOOK_S", 0.0)
    free = [10, 20, 70, 70, 70]
    wait_for_memory(lambda: (Gpu("one", 80, free.pop(0)),))
    assert free == [70]
    wait_for_memory(lambda: ())


def test_gpus_are_asked_for_unless_the_study_is_on_the_cpu():
    assert RayExecutorConfig().gpus == 1
    assert RayExecutorConfig(device="cpu").gpus == 0
    assert RayExecutorConfig(gpus_per_worker=0.5).gpus == 0.5


@pytest.mark.parametrize("artifacts", ["s3://key:secret@bucket/prefix", "nowhere", "/tmp/home", "s3://"])
def test_artifacts_are_a_url_without_credentials(artifacts):
    with pytest.raises(ValueError, match="artifacts"):
        RayExecutorConfig(artifacts=artifacts)


def test_signals_stay_with_the_study():
    former = signal.getsignal(signal.SIGTERM)
    with rays._own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is former
