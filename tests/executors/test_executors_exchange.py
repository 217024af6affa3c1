"""Files exchanged through a store: what is fetched is what was kept, or it is said what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import fsspec
import pytest
from botocore.exceptions import EndpointConnectionError

from sweeper.errors import HardwareError, StudyStateError
from sweeper.executors.artifact_store import NoArtifactStore, ObjectStore, keep_study


@pytest.fixture
def store(tmp_path):
    return ObjectStore(f"file://{tmp_path / 'store' / 'tiny'}")


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_was_kept(store, tmp_path):
    here = write(tmp_path / "here", result="1", frozen__state="abc", frozen__more="abc")
    write(here, **{".half": "x"})
    store.keep("trials/00000", here)
    there = write(tmp_path / "there", result="0", frozen__old="gone")
    assert store.fetch("trials/00000", there)
    assert contents(there) == {"result": "1", "frozen/state": "abc", "frozen/more": "abc"}


def test_what_was_not_kept_is_not_there(store, tmp_path):
    there = write(tmp_path / "there", result="0")
    assert not store.fetch("trials/00001", there)
    assert contents(there) == {"result": "0"}
    assert NoArtifactStore().fetch("trials/00001", there)
    assert not NoArtifactStore().fetch("trials/00001", tmp_path / "nowhere")


def test_what_a_folder_has_no_more_is_removed_from_the_store_and_wherever_it_is_fetched(store, tmp_path):
    here, there = write(tmp_path / "here", frozen__state="abc", spec="s"), tmp_path / "there"
    store.keep("trials/00000", here)
    store.fetch("trials/00000", there)
    shutil.rmtree(here / "frozen")
    store.keep("trials/00000", write(here, result="1"))
    assert store.fetch("trials/00000", there)
    assert contents(there) == {"result": "1", "spec": "s"}
    assert not (there / "frozen").exists()  # a trial with such a folder would be gone on with
    kept = list((tmp_path / "store" / "tiny" / "trials" / "00000" / "files").iterdir())
    assert len(kept) == 2


def test_what_is_there_already_is_neither_sent_nor_fetched_again(store, tmp_path, monkeypatch):
    here, there = write(tmp_path / "here", large="abc"), tmp_path / "there"
    store.keep("data", here)
    store.fetch("data", there)
    sent = []
    monkeypatch.setattr(ObjectStore, "_put", lambda self, file, place: sent.append(file))
    monkeypatch.setattr(ObjectStore, "_get", lambda self, place, path, file: sent.append(path))
    store.keep("data", here)
    store.fetch("data", there)
    assert sent == []


def test_a_damaged_file_is_named_and_not_taken(store, tmp_path):
    here, there = write(tmp_path / "here", state="abc"), tmp_path / "there"
    store.keep("trials/00000", here)
    (kept,) = (tmp_path / "store" / "tiny" / "trials" / "00000" / "files").iterdir()
    kept.write_text("abX")
    with pytest.raises(StudyStateError, match=r"trials/00000.* is damaged: it is not what was kept of state"):
        store.fetch("trials/00000", there)
    assert contents(there) == {}
    kept.unlink()
    with pytest.raises(StudyStateError, match=r"is damaged: .* is missing"):
        store.fetch("trials/00000", there)


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        json.dumps({"../../escaped": {"bytes": 1, "sha256": "0" * 64}}),
        json.dumps({"/etc/escaped": {"bytes": 1, "sha256": "0" * 64}}),
        json.dumps({"a": {"bytes": -1, "sha256": "0" * 64}}),
        json.dumps({"a": {"bytes": 1, "sha256": "../x"}}),
    ],
)
def test_a_manifest_of_somebody_elses_making_leads_nowhere(store, tmp_path, manifest):
    store.keep("data", write(tmp_path / "here", state="abc"))
    (tmp_path / "store" / "tiny" / "data" / "manifest.json").write_text(manifest)
    with pytest.raises(StudyStateError, match=r"data of this study is damaged"):
        store.fetch("data", tmp_path / "there")
    assert not (tmp_path / "escaped").exists()


def test_a_folder_that_is_kept_half_is_as_it_was_before(store, tmp_path, monkeypatch):
    here, there = write(tmp_path / "here", state="old"), tmp_path / "there"
    store.keep("trials/00000", here)
    write(here, state="new", more="m")
    monkeypatch.setattr(ObjectStore, "_write", lambda *given: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        store.keep("trials/00000", here)
    store.fetch("trials/00000", there)
    assert contents(there) == {"state": "old"}


def test_a_studys_own_files_go_together(store, tmp_path):
    folder = write(tmp_path / "tiny", data__train="t", data__test="x", resolved__json="r", trials__0="no")
    os.rename(folder / "resolved" / "json", folder / "resolved.json")
    keep_study(store, folder)
    store.fetch("data", tmp_path / "there")
    assert contents(tmp_path / "there") == {"data/train": "t", "data/test": "x", "resolved.json": "r"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket on a server that speaks S3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cretpassw0rd")
        try:
            files, end = fsspec.filesystem("s3"), time.monotonic() + 60
            while True:
                try:
                    files.mkdir("sweeps")
                    break
                except (OSError, EndpointConnectionError):
                    assert server.poll() is None and time.monotonic() < end
                    time.sleep(0.2)
            yield "s3://sweeps/team/tiny"
        finally:
            server.kill()
            server.wait()


def test_an_object_store_does_the_same(s3, tmp_path):
    here, there = write(tmp_path / "here", result="1", frozen__state="abc", spec="s"), tmp_path / "there"
    ObjectStore(s3).keep("trials/00000", here)
    assert not ObjectStore(s3).fetch("trials/00001", there)
    assert ObjectStore(s3).fetch("trials/00000", there)
    assert contents(there) == {"result": "1", "frozen/state": "abc", "spec": "s"}
    shutil.rmtree(here / "frozen")
    ObjectStore(s3).keep("trials/00000", here)
    assert ObjectStore(s3).fetch("trials/00000", there)
    assert contents(there) == {"result": "1", "spec": "s"}
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    kept = files.find("sweeps/team/tiny/trials/00000/files")
    assert len(kept) == 2
    for file in kept:
        files.pipe_file(file, b"X")
    with pytest.raises(StudyStateError, match=r"trials/00000.* is damaged: it is not what was kept of"):
        ObjectStore(s3).fetch("trials/00000", tmp_path / "elsewhere")


def test_an_unknown_store_is_said_to_be_one():
    with pytest.raises(HardwareError, match=r"executor.artifacts is nowhere://here"):
        ObjectStore("nowhere://here")


def test_a_part_that_is_forgotten_is_kept_no_more_and_the_rest_stays(store, tmp_path):
    folder, other = tmp_path / "mine", tmp_path / "theirs"
    for name, text in (("spec.json", "asked"), ("adapter/weights", "large"), ("adapter/config", "asked")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    store.keep("trials/00000", folder)
    store.forget("trials/00000", "adapter")
    store.forget("trials/00000", "adapter")
    assert store.fetch("trials/00000", other)
    assert [path.name for path in other.rglob("*")] == ["spec.json"]
    assert (other / "spec.json").read_text() == "asked"  # the same content as a forgotten file's
    assert len(list((tmp_path / "store").rglob("files/*"))) == 1
    store.forget("trials/00007", "adapter")  # of which nothing was kept


def test_two_workers_that_forget_the_same_at_once_do_not_trip_over_each_other(store, tmp_path, monkeypatch):
    store.keep("trials/00000", write(tmp_path / "here", spec="asked", adapter__weights="learned"))
    rival, remove = ObjectStore(store.url), store._files.rm_file

    def overtaken(place):
        rival._files.rm(place)
        remove(place)

    monkeypatch.setattr(store._files, "rm_file", overtaken)
    store.forget("trials/00000", "adapter")
    assert store.fetch("trials/00000", tmp_path / "other")
    assert contents(tmp_path / "other") == {"spec": "asked"}
