"""What broke other experiment managers, tried here.

What is tested elsewhere:

======================================================  =====================================================
names in study files, adapters' and users' names        tests/config/test_config_loader.py,
                                                        tests/registry/test_registry.py, tests/access
a foreign Host or Origin, CSRF, DNS rebinding: 403      tests/dashboard/test_dashboard_sign_in.py
pickles where safetensors are due                       tests/models/test_models_folder.py,
                                                        tests/registry/test_registry.py
an enqueued value outside the space                     tests/search/test_search_seam.py,
                                                        tests/executors/test_executors_control.py
metrics that are no numbers, steps of 2^63              tests/store/test_store_records.py
======================================================  =====================================================
"""

from __future__ import annotations

import ast
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_parts import content, refused, sweeper

import sweeper as package
from sweeper.access import Accounts
from sweeper.errors import AccessError, RegistryError, UserError
from sweeper.paths import Home
from sweeper.registry import Registry
from sweeper.registry.labels import valid_tags
from sweeper.store import Database, OrderKind
from sweeper.study.orders import give

filled_home = pytest.importorskip("filled_home")

TRAVERSALS = (
    "../outside",
    "..\\outside",
    "..%2foutside",
    "%2e%2e/outside",
    "%252e%252e%252foutside",
    "..%c0%afoutside",
    "....//outside",
    "/etc/passwd",
    "C:\\outside",
    "\\\\host\\share",
    "file:///etc/passwd",
    "~/outside",
    "a/../../outside",
    "..",
    ".",
    "a\x00b",
    "a\nb",
    "\u202eoutside",
    "x" * 600,
    "",
    " ",
)
"""Ways out of a folder, spelled as CVE-2023-2780, CVE-2024-1560 and CVE-2025-11201 had them, and others."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a finished study, beside a folder that nobody named."""
    monkeypatch.chdir(tmp_path)
    found = Home.current()
    with Database.open(found.database, create=True) as database:
        filled_home.Filler(found, database).whole()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "pipeline.json").write_text('{"path": "x", "text": "", "stages": {}}')
    return found


def test_no_name_leads_out_of_the_home(home, tmp_path):
    before = content(tmp_path)
    for name in TRAVERSALS:
        for command in (
            ("status", name),
            ("resume", name),
            ("stop", name),
            ("data", name),
            ("enqueue", name, "learning_rate=0.001"),
            ("adapters", "show", name),
            ("adapters", "alias", "itn", "1", name),
            ("export", name, "--format", "trl", "--out", "out"),
            ("compare", f"{name}:0", "itn:0"),
        ):
            if name == "" and command[0] == "status":
                continue  # no name means all studies
            result = sweeper(*command)
            assert result.exit_code == 2, (command, result.output)
            assert "Traceback" not in result.output and "bug in sweeper" not in result.output, command
            assert len(result.stderr) < 2_000 and "\x00" not in result.stderr and "\u202e" not in result.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", [*TRAVERSALS, "\ud800"])
def test_a_name_is_refused_where_it_is_declared_before_any_database_sees_it(home, study_file, tmp_path, name):
    file = study_file()
    quoted = '"' + "".join(f"\\u{ord(letter):04x}" for letter in name) + '"'
    file.path.write_text(re.sub(r"(?m)^name: .*$", lambda _: f"name: {quoted}", file.text), encoding="utf-8")
    before = content(tmp_path)
    said = refused(sweeper("run", file.path), str(file.path))
    assert "name" in said and len(said) < 2_000
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        with pytest.raises(RegistryError):
            registry.register(name, tmp_path, study="itn", trial=2)
    with pytest.raises(AccessError):
        Accounts(home).add(name, "editor", "correct horse battery")
    if not name.isprintable() or not name.strip() or len(name) > 50:
        with pytest.raises(UserError):
            valid_tags([name])
    assert content(tmp_path) == before


def test_what_is_asked_outside_the_space_is_refused_and_not_kept(home):
    with Database.open(home.database, create=False) as database:
        for parameters in (
            {"learning_rate": 1e9},
            {"learning_rate": "x"},
            {"learning_rate": float("nan")},
            {"learning_rate": 2**63},
            {"__class__": 1},
            {"learning_rate": {"$gt": 0}},
        ):
            with pytest.raises(UserError):
                give(home, database, "itn", OrderKind.ENQUEUE, actor="eve", data={"parameters": parameters})
        assert database.orders.all("itn") == ()
    refused(sweeper("enqueue", "itn", "learning_rate=1e9"), "learning_rate")
    refused(sweeper("enqueue", "itn", "learning_rate=.nan"), "learning_rate")
    refused(sweeper("enqueue", "itn", "learning_rate=!!python/object/apply:os.system [id]"))
    refused(sweeper("budget", "itn", "--timeout", "-1h"), "timeout")


FORBIDDEN = {
    "torch": {"load", "jit", "hub", "package"},
    "pickle": None,
    "cPickle": None,
    "dill": None,
    "cloudpickle": None,
    "joblib": None,
    "shelve": None,
    "marshal": None,
    "numpy": {"load", "loads", "fromregex"},
    "pandas": {"read_pickle"},
    "yaml": {"load", "unsafe_load", "full_load", "load_all", "UnsafeLoader", "FullLoader", "Loader"},
}
"""What can run code while it reads; of some libraries only these names. CVE-2025-32434, CVE-2026-24747."""


def sources() -> Iterator[tuple[Path, ast.Module]]:
    root = Path(package.__file__).parents[1]
    for folder in (Path(package.__file__).parent, root / "dashboard"):
        for path in folder.rglob("*.py"):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports or reaches by dots, by its full name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            yield f"{names[node.value.id]}.{node.attr}"


def constants(tree: ast.Module) -> list[str]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def harmful(name: str) -> bool:
    first, _, rest = name.partition(".")
    return first in FORBIDDEN and (FORBIDDEN[first] is None or rest.partition(".")[0] in FORBIDDEN[first])


def test_no_code_of_ours_reads_what_can_run_code():
    seen = 0
    for path, tree in sources():
        found = [name for name in calls(tree) if harmful(name)]
        assert found == [], (path, found)
        words = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
        assert "allow_pickle" not in words, path
        texts = constants(tree)
        assert not any("rng_state" in text for text in texts), path  # CVE-2026-1839
        assert "resume_from_checkpoint" not in words, path
        seen += 1
    assert seen > 300
    examples = (
        "import torch\ntorch.load('x')",
        "from torch import load",
        "import pickle",
        "import numpy as n\nn.load('')",
    )
    for example in examples:
        assert any(map(harmful, calls(ast.parse(example)))), example


def test_what_lies_in_shared_temporary_folders_is_its_owners_alone(home, monkeypatch, tmp_path, capsys):
    """CVE-2026-4137: a folder that all may write to, where others can put or change files."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    former = os.umask(0)
    try:
        monkeypatch.setattr(Database, "open", lambda *_, **__: 1 / 0)
        result = sweeper("status")
        assert result.exit_code == 1 and "bug in sweeper" in result.stderr
    finally:
        os.umask(former)
    left = list(shared.rglob("*"))
    assert left and all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in left)
    for path, tree in sources():
        texts = constants(tree)
        assert not any(re.search(r"(^|\s)/(tmp|var/tmp|dev/shm)\b", text) for text in texts), path
        assert not any(name in ("tempfile.mktemp", "os.tmpnam") for name in calls(tree)), path


def test_there_is_no_default_user_and_no_default_password(home):
    """CVE-2025-11200: a login that everybody knows."""
    accounts = Accounts(home)
    assert list(accounts.all()) == []
    for name in ("admin", "sweeper"):
        for password in ("", "admin", "password1234"):
            assert accounts.verify(name, password) is None
    said = refused(sweeper("dashboard", "--host", "0.0.0.0", "--no-browser", "--port", "8599"))
    assert "there are no users yet" in said


def test_sweeper_never_opens_rays_dashboard_to_others():
    """CVE-2023-48022: Ray's dashboard runs jobs for whoever reaches it, and asks nobody who they are."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                host = given.get("dashboard_host")
                assert host is None or getattr(host, "value", None) in ("127.0.0.1", "localhost", "::1"), path
                if ast.unparse(node.func) == "ray.init" and "include_dashboard" in given:
                    assert getattr(given["include_dashboard"], "value", None) is False, path
        texts = constants(tree)
        for text, value in zip(texts, [*texts[1:], ""], strict=True):
            assert text != "--dashboard-host" or value in ("127.0.0.1", "localhost"), (path, value)
            assert not re.search(r"--dashboard-host(=|\s+)(?!127\.0\.0\.1|localhost)", text), (path, text)
