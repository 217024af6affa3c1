from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.errors import RegistryError, StudyStateError
from sweeper.files.atomic import write_json
from sweeper.paths import Home
from sweeper.registry import MOVES, Lineage, Registry, Stage
from sweeper.store import Database, Evaluation, ScoreRecord, TrialKind

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def database(home: Home, tmp_path: Path) -> Iterator[Database]:
    with Database.open(home.database, create=True) as database:
        database.studies.create(
            "itn",
            file_name="itn.yaml",
            file_text="name: itn",
            config={"name": "itn"},
            space={},
            seed=3,
            packages={"torch": "2.13.0"},
            data_sha256={"train": "d" * 64},
            base_model="smollm2-135m",
            base_model_fingerprint="f" * 64,
        )
        spec = TrialSpec(
            study="itn",
            number=2,
            seed=7,
            model=ModelConfig(name="smollm2-135m"),
            model_folder=tmp_path,
            technique=SFT(),
            adapter=LoRA(),
            train=tmp_path,
            validation=tmp_path,
            hyperparameters=Hyperparameters(learning_rate=1e-3, batch_size=8, epochs=1),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=tmp_path,
        )
        database.trials.start(spec, TrialKind.SAMPLED)
        database.evaluations.add(
            "itn", Evaluation(2, "test", (ScoreRecord("exact_match", 0.9, 0.87, 0.93, 0.9, 0.8, 1.0),))
        )
        yield database


@pytest.fixture
def registry(home: Home, database: Database) -> Registry:
    return Registry(home, database)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "adapter")


def make_source(folder: Path, value: float = 1.0) -> Path:
    folder.mkdir()
    save_file({"layer.lora_A.weight": numpy.full((4, 8), value, dtype=numpy.float32)}, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (folder / "README.md").write_text("# An adapter\n")
    return folder


@pytest.fixture
def register(registry: Registry, source: Path) -> Callable[[], int]:
    return lambda: registry.register("itn", source, study="itn", trial=2).version


def test_a_registered_adapter_has_its_files_scores_and_lineage(registry: Registry, home: Home, source: Path) -> None:
    (source / "tokenizer.json").write_text("{}")
    (source / "optimizer.safetensors").write_bytes(b"not taken")
    (source / "checkpoint-10").mkdir()
    found = registry.register("itn", source, study="itn", trial=2)
    assert (str(found), found.stage, found.folder) == ("itn v1", Stage.CANDIDATE, home.folder / "adapters/itn/v1")
    assert sorted(found.files) == ["README.md", "adapter_config.json", WEIGHTS, "tokenizer.json"]
    assert sorted(os.listdir(found.folder)) == sorted(found.files)
    assert all((found.folder / name).read_bytes() == (source / name).read_bytes() for name in found.files)
    assert found.sha256 == found.files[WEIGHTS]
    assert found.bytes == sum((source / name).stat().st_size for name in found.files)
    assert found.scores["test"]["exact_match"]["low"] == 0.87
    lineage = found.lineage
    assert (lineage.study, lineage.trial, lineage.parent) == ("itn", 2, None)
    assert (lineage.base_model, lineage.base_model_fingerprint) == ("smollm2-135m", "f" * 64)
    assert (lineage.data_sha256, lineage.packages) == ({"train": "d" * 64}, {"torch": "2.13.0"})
    assert (lineage.seeds, lineage.hyperparameters["learning_rate"]) == ({"study": 3, "trial": 7}, 1e-3)
    assert len(lineage.config_sha256) == 64
    assert registry.verify("itn", 1) == found


def test_versions_count_from_one_per_name(registry: Registry, register: Callable[[], int], source: Path) -> None:
    assert [register(), register()] == [1, 2]
    assert registry.register("other", source, study="itn", trial=2).version == 1
    third = registry.register("itn", source, study="itn", trial=2, parent=2)
    assert (third.version, third.lineage.parent) == (3, 2)
    assert registry.get("itn") == third
    assert registry.get("itn", 1).version == 1
    assert [str(found) for found in registry.all()] == ["itn v1", "itn v2", "itn v3", "other v1"]
    assert [str(found) for found in registry.all("other")] == ["other v1"]


def test_what_is_not_there_is_named_with_what_is(registry: Registry, register: Callable[[], int], source: Path) -> None:
    register()
    with pytest.raises(RegistryError, match=r"no adapter 'itm' is registered; did you mean 'itn'\?"):
        registry.get("itm")
    with pytest.raises(RegistryError, match=r"has no version 7; there are: v1 \(candidate\)"):
        registry.get("itn", 7)
    with pytest.raises(RegistryError, match="has no version in stage production"):
        registry.get("itn", Stage.PRODUCTION)
    with pytest.raises(RegistryError, match="has no version 9"):
        registry.register("itn", source, study="itn", trial=2, parent=9)
    with pytest.raises(StudyStateError, match="has no trial 5"):
        registry.register("itn", source, study="itn", trial=5)
    assert len(registry.all()) == 1


def test_promotion_archives_the_former_and_a_rollback_brings_it_back(
    registry: Registry, register: Callable[[], int]
) -> None:
    for version in (register(), register()):
        registry.move("itn", version, Stage.STAGING)
        assert registry.move("itn", version, Stage.PRODUCTION, force=True).stage is Stage.PRODUCTION
    assert [found.stage for found in registry.all("itn")] == [Stage.ARCHIVED, Stage.PRODUCTION]
    registry.roll_back("itn")
    assert [found.stage for found in registry.all("itn")] == [Stage.PRODUCTION, Stage.ARCHIVED]
    assert registry.get("itn", Stage.PRODUCTION).version == 1


REACH = {
    Stage.CANDIDATE: (),
    Stage.STAGING: (Stage.STAGING,),
    Stage.PRODUCTION: (Stage.STAGING, Stage.PRODUCTION),
    Stage.ARCHIVED: (Stage.ARCHIVED,),
}


@pytest.mark.parametrize("old", REACH)
@pytest.mark.parametrize("new", list(Stage))
def test_only_the_moves_of_the_table(registry: Registry, register: Callable[[], int], old: Stage, new: Stage) -> None:
    version = register()
    for stage in REACH[old]:
        registry.move("itn", version, stage, force=True)
    if new in MOVES[old] and new is not Stage.DELETED:
        assert registry.move("itn", version, new, force=True).stage is new
    else:
        with pytest.raises(RegistryError, match=f"itn v1 (is {old} and )?cannot "):
            registry.move("itn", version, new, force=True)
        assert registry.get("itn", version).stage is old


def test_two_promotions_at_once_leave_one_production_version(
    registry: Registry, register: Callable[[], int], database: Database
) -> None:
    register()
    stale = registry.move("itn", 1, Stage.STAGING)
    registry.move("itn", 1, Stage.ARCHIVED)
    with pytest.raises(RegistryError, match="just moved by someone else"):
        registry._change(stale, Stage.PRODUCTION, None, "ann", "promote", "too late")
    assert registry.get("itn", 1).stage is Stage.ARCHIVED
    assert not database.adapters.change_stages("itn", {8: (Stage.STAGING, Stage.PRODUCTION)})
    assert [action.kind for action in registry.history("itn")] == ["archive", "move", "register"]


def test_verify_says_which_file_differs(registry: Registry, register: Callable[[], int]) -> None:
    register()
    folder = registry.move("itn", 1, Stage.STAGING).folder
    (folder / "README.md").write_text("# Swapped\n")
    (folder / "adapter_config.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(RegistryError) as caught:
        registry.verify("itn", 1)
    assert "README.md has changed (SHA-256" in str(caught.value)
    assert "adapter_config.json is missing" in str(caught.value)
    assert "pytorch_model.bin was not registered" in str(caught.value)
    with pytest.raises(RegistryError, match="is not as it was registered"):
        registry.move("itn", 1, Stage.PRODUCTION)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(RegistryError, match=r"the folder .* is missing"):
        registry.verify("itn", 1)


def test_a_file_swapped_for_a_link_is_seen(registry: Registry, register: Callable[[], int], source: Path) -> None:
    register()
    weights = registry.get("itn", 1).folder / WEIGHTS
    weights.unlink()
    weights.symlink_to(source / WEIGHTS)
    with pytest.raises(RegistryError, match=r"adapter_model.safetensors is no longer a regular file"):
        registry.verify("itn", 1)


def test_only_archived_versions_are_deleted_and_numbers_never_return(
    registry: Registry, register: Callable[[], int]
) -> None:
    assert [register(), register()] == [1, 2]
    with pytest.raises(RegistryError, match="itn v2 is candidate; only an archived version can be deleted"):
        registry.delete("itn", 2)
    folder = registry.move("itn", 2, Stage.ARCHIVED).folder
    registry.delete("itn", 2)
    assert not folder.exists()
    assert [found.version for found in registry.all("itn")] == [1]
    with pytest.raises(RegistryError, match="has no version 2"):
        registry.get("itn", 2)
    assert register() == 3
    assert registry.verify("itn", 1).version == 1


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\b", "C:x", "a\nb", "itn\n", "x" * 300, "..", "%2e%2e/", "\u202ex"]
)
def test_hostile_names_are_refused_everywhere(registry: Registry, source: Path, home: Home, name: str) -> None:
    for act in (lambda: registry.register(name, source, study="itn", trial=2), lambda: registry.get(name)):
        with pytest.raises(RegistryError, match=r"adapter name .*: a name has 1 to 100 letters"):
            act()
    assert not (home.folder / "adapters").exists()


def spoil_pickle(source: Path) -> None:
    (source / "adapter_model.BIN").write_bytes(b"\x80\x04.")


def spoil_weights_link(source: Path) -> None:
    (source / WEIGHTS).rename(source.with_name("elsewhere"))
    (source / WEIGHTS).symlink_to(source.with_name("elsewhere"))


def spoil_other_link(source: Path) -> None:
    (source / "README.md").unlink()
    (source / "README.md").symlink_to("/etc/passwd")


def spoil_fifo(source: Path) -> None:
    os.mkfifo(source / "tokenizer.json")


def spoil_header(source: Path) -> None:
    (source / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + b"{}")


def spoil_cut(source: Path) -> None:
    (source / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:-10])


def spoil_no_tensors(source: Path) -> None:
    save_file({}, source / WEIGHTS)


def spoil_json(source: Path) -> None:
    (source / "adapter_config.json").write_text("{'r': 4}")


def spoil_json_list(source: Path) -> None:
    (source / "adapter_config.json").write_text("[]")


def spoil_config_gone(source: Path) -> None:
    (source / "adapter_config.json").unlink()


def spoil_folder(source: Path) -> None:
    source.rename(source.with_name("gone"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_pickle, "holds the pickle 'adapter_model.BIN'"),
        (spoil_weights_link, "holds 'adapter_model.safetensors', a link"),
        (spoil_other_link, "holds 'README.md', a link"),
        (spoil_fifo, "holds 'tokenizer.json', a link or special file"),
        (spoil_header, "not a valid safetensors file"),
        (spoil_cut, "not a valid safetensors file"),
        (spoil_no_tensors, "holds no tensors"),
        (spoil_json, "not valid JSON"),
        (spoil_json_list, "must hold a JSON object"),
        (spoil_config_gone, "lacks adapter_config.json"),
        (spoil_folder, "is missing or is not a plain folder"),
    ],
)
def test_unfit_folders_are_refused(
    registry: Registry, home: Home, source: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(source)
    with pytest.raises(RegistryError, match=message):
        registry.register("itn", source, study="itn", trial=2)
    assert registry.all() == ()
    assert not (home.folder / "adapters").exists()


CRASH = """
import os, signal, sys
from pathlib import Path
from sweeper.paths import Home
from sweeper.registry import Registry, files
from sweeper.store import Database
from sweeper.store.adapters import Adapters

home, source, where = Home(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "while copying":
    copy_file = files.checksums.copy_file
    files.checksums.copy_file = lambda file, to: die() if to.name == files.ADAPTER[0] else copy_file(file, to)
elif where == "before the row":
    Adapters.add = die
with Database.open(home.database, create=False) as database:
    registry = Registry(home, database)
    for _ in range(int(sys.argv[4])):
        registry.register("itn", source, study="itn", trial=2)
"""


def child(home: Home, source: Path, where: str, times: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CRASH), str(home.folder), str(source), where, str(times)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.parametrize("where", ["while copying", "before the row"])
def test_a_crash_leaves_no_half_version(
    registry: Registry, register: Callable[[], int], home: Home, source: Path, where: str
) -> None:
    process = child(home, source, where)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert registry.all() == ()
    assert len(list((home.folder / "adapters" / "itn").glob("*v1*"))) == 1  # what the crash left
    assert register() == 1
    registry.verify("itn", 1)
    assert {file.name for file in (home.folder / "adapters" / "itn").iterdir()} <= {"v1", ".lock"}


def test_a_folder_of_unknown_origin_is_set_aside_and_not_lost(
    registry: Registry, register: Callable[[], int], home: Home, tmp_path: Path
) -> None:
    stranger = home.adapter("itn", 1)
    stranger.parent.mkdir(parents=True)
    make_source(tmp_path / "stranger", value=5.0).rename(stranger)
    weights = (stranger / WEIGHTS).read_bytes()
    assert register() == 1
    registry.verify("itn", 1)
    assert (stranger.with_name("unregistered-v1-1") / WEIGHTS).read_bytes() == weights


def test_processes_register_at_once(registry: Registry, home: Home, source: Path) -> None:
    processes = [child(home, source, "nowhere", times=5) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert [found.version for found in registry.all("itn")] == list(range(1, 16))
    for version in range(1, 16):
        registry.verify("itn", version)


def test_a_lineage_of_an_earlier_version_says_nothing_of_weights(registry: Registry, source: Path) -> None:
    told = asdict(registry.register("itn", source, study="itn", trial=2).lineage)
    del told["initial_trial"]
    assert Lineage(**told).initial_trial is None


def test_the_trial_whose_weights_it_began_from_is_in_the_lineage(registry: Registry, home: Home, source: Path) -> None:
    paths = home.study("itn")
    write_json(paths.trial(2).spec, {"initial_adapter": str(paths.trial(11).adapter), "unknown": 1})
    assert registry.register("itn", source, study="itn", trial=2).lineage.initial_trial == 11
    paths.trial(2).spec.write_text("{")
    with pytest.raises(RegistryError, match="is damaged; restore it"):
        registry.register("itn", source, study="itn", trial=2)
    assert [version.version for version in registry.all("itn")] == [1]
