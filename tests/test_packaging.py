"""The wheel: built for real, it holds what the repository has and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"sweeper": "sweeper", "dashboard/sweeper_dashboard": "sweeper_dashboard", "studies": "sweeper_studies"}
"""Folders of the repository that ship, and their names as packages."""
FILES = ("pyproject.toml", "README.md", "LICENSE")
EXPECTED = (
    *("sweeper/py.typed", "sweeper/__init__.pyi", "sweeper/presets/guide.yaml", "sweeper/models/catalogue.yaml"),
    *("sweeper/store/migrations/versions/", "sweeper_studies/quickstart.yaml", "sweeper_studies/data/itn/train.jsonl"),
    *("sweeper_dashboard/app.py", "sweeper_dashboard/views/", "sweeper_dashboard/.streamlit/config.toml"),
)
"""What some of the names in the wheel begin with."""


def is_by_product(part: str) -> bool:
    return part == "__pycache__" or (part.startswith(".") and part != ".streamlit")


def shipped() -> set[str]:
    """Return the path in the wheel of every file that ships."""
    found = set()
    for folder, package in FOLDERS.items():
        names = (path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob("*") if path.is_file())
        found |= {f"{package}/{name.as_posix()}" for name in names if not any(map(is_by_product, name.parts))}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the repository, in which lie tests and what running leaves behind."""
    root = tmp_path_factory.mktemp("packaging")
    copy, out = root / "repository", root / "dist"
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
        (copy / folder / "__pycache__").mkdir()
        (copy / folder / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"")
    (copy / "studies" / ".sweeper" / "studies" / "one" / "data").mkdir(parents=True)
    (copy / "studies" / ".sweeper" / "studies" / "one" / "data" / "train.jsonl").write_text("")
    for file in FILES:
        shutil.copy(REPOSITORY / file, copy)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_something.py").write_text("")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is absent from the `packages` configuration" not in done.stdout + done.stderr
    (built,) = out.glob("sweeper-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel, as an installer lays them down."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_list_of_packages_is_the_folder_tree():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert listed["package-dir"] == {package: folder for folder, package in FOLDERS.items()}
    with_modules = {name.rpartition("/")[0].replace("/", ".") for name in shipped() if name.endswith(".py")}
    assert listed["packages"] == sorted(with_modules | set(FOLDERS.values()))


def test_every_module_is_in_a_package():
    modules = [name for name in shipped() if name.endswith(".py") and not name.startswith("sweeper_studies/")]
    assert [name for name in modules if f"{name.rpartition('/')[0]}/__init__.py" not in modules] == []


def test_the_wheel_holds_what_the_repository_has_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped()
    assert [begin for begin in EXPECTED if not any(name.startswith(begin) for name in names)] == []


def test_what_the_wheel_says_of_itself(wheel):
    import sweeper

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(about))
        entry_points = archive.read(about.replace("METADATA", "entry_points.txt")).decode()
        assert any(name.endswith("LICENSE") for name in archive.namelist())
    assert (metadata["Name"], metadata["Version"]) == ("sweeper", sweeper.__version__)
    assert metadata["Requires-Python"] == project["requires-python"]
    assert len([line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]) == len(
        project["dependencies"]
    )
    assert "sweeper = sweeper.cli.main:main" in entry_points


def test_the_wheel_works_where_there_is_no_checkout(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_CACHE": str(tmp_path / "hub")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import sweeper; from sweeper.cli import shipped as s; print(sweeper.__file__)"
    where += "; print(s.shipped_folder(s.DASHBOARD), s.shipped_folder(s.STUDIES), sep='\\n')"
    assert all(Path(line).is_relative_to(site) for line in run("-c", where).splitlines())
    run("-m", "sweeper", "init", "--example")
    checked = run("-m", "sweeper", "check", "studies/quickstart.yaml")
    assert "can run" in checked
    create = "from sweeper.paths import Home; from sweeper.store import Database\n"
    create += "with Database.open(Home.current().database, create=True) as database: print(database.studies.all())"
    assert run("-c", create) == "()\n"
    assert "no studies" in run("-m", "sweeper", "status").lower()
