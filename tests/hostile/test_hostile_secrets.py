"""Secrets planted in the environment, and no byte of them in what a real study, its exports and its pages leave.

What is tested elsewhere:

=====================================================  ======================================================
each rule of ``redact``                                tests/store/test_store_redact.py
texts in every column of the database                  tests/store/test_store_redact.py
passwords of the dashboard's users, its key, sessions  tests/dashboard/test_dashboard_sign_in.py, tests/access
an index address with a password, given to pip         tests/models/test_models_wheel.py
=====================================================  ======================================================
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import yaml
from hostile_parts import refused, sweeper
from streamlit.testing.v1 import AppTest

from sweeper.errors import DatabaseError, SweeperError
from sweeper.paths import Home
from sweeper.redact import redact
from sweeper.store import Database
from sweeper.study.run import run_study
from sweeper.training import trial

chrome = pytest.importorskip("browser")
filled_home = pytest.importorskip("filled_home")

MARK = "planted"
PASSWORD = "planted{0}%25100%40home"
SECRETS = {
    "HF_TOKEN": "hf_planted4711aBcDeFgHiJkLmNoPqR",
    "X_KEY": 'planted "key" \u00e9\\n 4711',
    "X_SECRET": "planted/secret+4711==",
    "X_TOKEN": " planted-token<4711>&'\n",
    "X_PASSWORD": "planted {0} 100% @home",
    "X_DATABASE": f"postgresql+psycopg://ann:{PASSWORD}@db.example:5432/sweeper?sslpassword=planted-too",
}
"""Every kind of secret with what is escaped in JSON, in addresses, in pages, by ``repr`` and by ``str.format``."""

PAGES = ("studies", "study", "trial", "compare", "control", "training_data", "adapters", "playground")


def quoted() -> str:
    """Return a comment of a study file that holds every secret."""
    return "".join(f"# {name}={' '.join(value.split())}\n" for name, value in SECRETS.items())


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def lived(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which ``sweeper run`` ran with the secrets in its environment, and all commands seen meanwhile."""
    folder = tmp_path_factory.mktemp("lived")
    splits = {"train": range(100, 124), "validation": range(300, 308), "test": range(500, 510)}
    study = {
        "name": "quiet",
        "model": str(tiny_model),
        "data": {
            name: str(tiny.write_rows(folder / f"{name}.jsonl", (tiny.row("prompt_completion", n) for n in numbers)))
            for name, numbers in splits.items()
        },
        "technique": {"kind": "sft", "max_length": 64},
        "adapter": "lora",
        "search": {
            "space": {"learning_rate": [0.01, 0.02], "lora_rank": 2, "batch_size": 8, "epochs": 1},
            "n_trials": 2,
            "known_good": False,
        },
        "evaluation": {"points": 1, "metrics": ["exact_match"], "max_new_tokens": 3, "candidates": 1},
        "executor": {"device": "cpu"},
    }
    (folder / "quiet.yaml").write_text(quoted() + yaml.safe_dump(study), encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        **SECRETS,
        "SWEEPER_HOME": str(folder / "home"),
        "SWEEPER_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder),
    }
    seen: list[str] = []
    with (folder / "run.log").open("wb") as log:
        command = [sys.executable, "-m", "sweeper", "run", "quiet.yaml", "--force"]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)
        until = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < until:
            seen += commands()
            time.sleep(0.5)
        process.kill()
    assert process.wait() == 0, (folder / "run.log").read_text()
    return folder, seen


def commands() -> Iterator[str]:
    """Yield the command line of every process there is, as any user of the machine can read it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue


def leaks(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder that hold any part of a secret, with what stands around it."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "quiet.yaml":
            whole = path.read_bytes()
            place = whole.find(MARK.encode())
            if place >= 0 or MARK in path.name:
                found[str(path.relative_to(folder))] = whole[max(0, place - 80) : place + 80]
    return found


def test_a_study_leaves_no_secret_in_files_logs_or_the_list_of_processes(lived):
    folder, seen = lived
    assert (folder / "home" / "sweeper.db").is_file() and list((folder / "home").rglob("*.safetensors"))
    assert "X_KEY removed" in "".join(
        study.file_text for study in in_database(folder, lambda database: database.studies.all())
    )
    assert leaks(folder) == {}
    assert any("sweeper run quiet.yaml" in command for command in seen)
    assert [command for command in seen if MARK in command] == []


def in_database(folder: Path, ask: Callable[[Database], object]) -> object:
    with Database.open(folder / "home" / "sweeper.db", create=False) as database:
        return ask(database)


def test_what_is_exported_and_reported_holds_no_secret(lived, planted, monkeypatch, tmp_path):
    folder, _ = lived
    monkeypatch.setenv("SWEEPER_HOME", str(folder / "home"))
    monkeypatch.chdir(tmp_path)
    for format in ("trl", "axolotl", "llama-factory", "adapter"):
        done = sweeper("export", "quiet", "--format", format, "--out", format)
        assert done.exit_code == 0 and MARK not in done.output, done.output
    for ending in ("md", "html"):
        done = sweeper("compare", "quiet:0", "quiet:1", "--out", f"report.{ending}")
        assert done.exit_code == 0 and MARK not in done.output, done.output
    assert len(list(tmp_path.rglob("*"))) > 10
    assert leaks(tmp_path) == {}
    for command in ("status", "trials", "best", "orders"):
        for flags in ([], ["--json"]):
            assert MARK not in sweeper(command, "quiet", *flags).output
    assert leaks(folder) == {}


@pytest.mark.parametrize("name", SECRETS)
def test_no_message_repeats_a_secret(lived, planted, monkeypatch, tmp_path, name):
    folder, _ = lived
    monkeypatch.setenv("SWEEPER_HOME", str(folder / "home"))
    monkeypatch.chdir(tmp_path)
    value = SECRETS[name]
    text = (folder / "quiet.yaml").read_text(encoding="utf-8")
    faulty = {
        "key": f"{text}\n{yaml.safe_dump({value: 1})}",
        "name": text.replace("name: quiet", yaml.safe_dump({"name": f"/{value}"}).strip()),
        "model": text.replace("\nmodel: ", f"\n{yaml.safe_dump({'model': value}).strip()} #"),
        "number": text.replace("n_trials: 2", yaml.safe_dump({"n_trials": value}).strip()),
    }
    for what, file in faulty.items():
        (tmp_path / f"{what}.yaml").write_text(file, encoding="utf-8")
        said = refused(sweeper("check", f"{what}.yaml"))
        assert MARK not in said, (what, said)
    for command in (
        ("status", value),
        ("best", value),
        ("resume", value),
        ("check", value),
        ("enqueue", "quiet", f"{value}=1"),
        ("enqueue", "quiet", f"learning_rate={value}"),
        ("compare", value, "quiet:0"),
        ("adapters", "show", value),
        ("export", value, "--format", "trl", "--out", "x"),
        ("models", "pull", value),
        ("users", "add", value, "--password-stdin"),
    ):
        result = sweeper(*command)
        assert result.exit_code in (1, 2) and "bug in sweeper" not in result.output, (command, result.output)
        assert MARK not in result.output, (command, result.output)


def test_a_trial_that_fails_with_a_secret_in_its_message_keeps_it_to_itself(study_file, planted, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError(f"the server said {SECRETS['X_KEY']!r} to {SECRETS['X_DATABASE']}")

    monkeypatch.setattr(trial, "build_trainer", failing)
    with pytest.raises(SweeperError, match="2 x failed: RuntimeError: the server said") as fault:
        run_study(study_file(search={"n_trials": 2}, executor={"kind": "inline", "device": "cpu"}))
    assert MARK not in str(fault.value)
    home = Home.current().folder
    assert len(list(home.rglob("error.txt"))) == 2
    assert leaks(home) == {}


def test_a_fault_of_the_database_repeats_no_password(planted, tmp_path):
    (tmp_path / "x.db").write_text("no database")
    with pytest.raises(DatabaseError) as fault:
        Database.open(tmp_path / "x.db", create=False)
    address = SECRETS["X_DATABASE"]
    told = redact(f"{fault.value}: {address}, or {address.replace('%25', '%').replace('%40', '@')}, and {PASSWORD!r}")
    assert MARK not in told and "db.example" in told


def shown(app: AppTest) -> str:
    """Return everything that a page was told to show."""
    return "\n".join(
        "".join(map(str, (element.proto if hasattr(element, "proto") else element,))) for element in app.main
    )


def test_no_page_shows_a_secret(lived, planted, monkeypatch):
    folder, _ = lived
    monkeypatch.setenv("SWEEPER_HOME", str(folder / "home"))
    app = AppTest.from_file(filled_home.APP, default_timeout=60).run()
    for page in PAGES:
        app.switch_page(f"views/{page}.py")
        for query in ({"study": "quiet"}, {"study": SECRETS["X_KEY"]}, {"study": SECRETS["X_DATABASE"]}):
            app.query_params.clear()
            app.query_params.update(query)
            app.run()
            assert not app.exception, app.exception
            assert MARK not in shown(app), (page, query)
    app.switch_page("views/study.py")
    app.query_params.clear()
    app.query_params.update({"study": "quiet", "section": "Study file"})
    assert "X_KEY removed" in shown(app.run())


def test_the_served_dashboard_holds_its_tongue(lived, planted, tmp_path):
    folder, _ = lived
    with chrome.serving(Home(folder / "home"), tmp_path / "dashboard.log") as served:
        assert [command for command in commands() if MARK in command] == []
    assert MARK not in served.output()
