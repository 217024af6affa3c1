"""Checksums of what trials leave: recorded with the result, checked wherever it is loaded."""

from __future__ import annotations

import shutil

import pytest
from damaging import HOW, flip

from sweeper.config.trial import Outcome
from sweeper.errors import ArtifactError, LeaseLost, StudyStateError
from sweeper.files.atomic import discard, new_folder
from sweeper.files.checksums import broken_seal, owner, sha256_of
from sweeper.store.trial_files import damage, of_result, require_weights, require_whole

WEIGHTS = "adapter_model.safetensors"


def test_the_files_of_a_trial_are_recorded_with_its_result(begun):
    study = begun()
    number = study.end()
    recorded = {each.path: each for each in study.database.artifacts.all("kept", number)}
    assert set(recorded) == {f"adapter/{WEIGHTS}", "adapter/adapter_config.json"}
    weights = study.paths.trial(number).adapter / WEIGHTS
    of = recorded[f"adapter/{WEIGHTS}"]
    assert (of.bytes, of.sha256) == (weights.stat().st_size, sha256_of(weights))


def test_a_result_that_is_refused_records_no_files(begun):
    study = begun()
    number = study.start()
    result = study.leave(number)
    files = of_result(study.paths.trial(number), result)
    with pytest.raises(LeaseLost):
        study.database.trials.finish("kept", result, holder="nobody", artifacts=files)
    assert study.database.artifacts.all("kept") == ()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json"])
def test_a_damaged_adapter_is_named_and_never_used(begun, how, name):
    study = begun()
    number = study.end()
    file = study.paths.trial(number).adapter / name
    damaging, said = HOW[how]
    damaging(file)
    with pytest.raises(ArtifactError, match=said) as error:
        require_whole(study.database, "kept", study.paths.trial(number), "adapter")
    assert name in str(error.value) and "sweeper doctor kept --repair" in str(error.value)
    assert error.value.exit_code == 2
    with pytest.raises(ArtifactError, match=said):
        study.register(number)
    assert study.database.adapters.all() == ()
    with pytest.raises(ArtifactError, match=said):
        require_weights(study.database, "kept", study.paths.trial(number), {})


def test_the_adapter_of_another_trial_is_no_replacement(begun):
    study = begun()
    mine, others = study.end(), study.end()
    shutil.rmtree(study.paths.trial(mine).adapter)
    shutil.copytree(study.paths.trial(others).adapter, study.paths.trial(mine).adapter)
    found = damage(study.database, "kept", study.paths.trial(mine), "adapter")
    assert len(found) == 2 and all("has changed" in line for line in found)


def test_a_file_that_nobody_wrote_is_named(begun):
    study = begun()
    folder = study.paths.trial(study.end()).adapter
    (folder / "adapter_model.bin").write_bytes(b"a pickle")
    assert damage(study.database, "kept", study.paths.trial(0), "adapter") == ["adapter_model.bin was not recorded"]


def test_weights_that_were_damaged_before_the_result_was_recorded(begun):
    """The process died between saving and recording, and the power with it."""
    study = begun()
    number = study.start()
    result = study.leave(number)
    flip(study.paths.trial(number).adapter / WEIGHTS)
    study.record(result)
    assert "has changed" in damage(study.database, "kept", study.paths.trial(number), "adapter")[0]


def test_files_from_before_they_were_recorded_are_taken_as_they_are(begun):
    study = begun()
    number = study.end()
    study.database.artifacts.forget("kept", number)
    flip(study.paths.trial(number).adapter / WEIGHTS)
    require_whole(study.database, "kept", study.paths.trial(number), "adapter")
    assert study.register(number).version == 1


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_frozen_trial_is_seen(begun, how):
    study = begun()
    number = study.start()
    result = study.leave(number, Outcome.INTERRUPTED)
    paths = study.paths.trial(number)
    damaging, said = HOW[how]
    assert damage(study.database, "kept", paths, "frozen") == []
    damaging(paths.frozen / "slot.safetensors")
    assert said in damage(study.database, "kept", paths, "frozen")[0]  # by its seal: nothing is recorded yet
    study.record(result)
    assert study.database.artifacts.all("kept", number)


def test_a_trial_that_goes_on_may_freeze_anew(begun):
    study = begun()
    number = study.start()
    study.record(study.leave(number, Outcome.PAUSED))
    study.database.trials.reopen("kept", number)
    assert study.database.artifacts.all("kept", number) == ()
    study.leave(number, Outcome.INTERRUPTED, size=5)
    assert damage(study.database, "kept", study.paths.trial(number), "frozen") == []


def test_what_another_trial_was_frozen_as_is_no_replacement(begun):
    study = begun()
    first, second = study.start(), study.start()
    for number in (first, second):
        study.leave(number, Outcome.INTERRUPTED)
    shutil.rmtree(study.paths.trial(first).frozen)
    shutil.copytree(study.paths.trial(second).frozen, study.paths.trial(first).frozen)
    assert damage(study.database, "kept", study.paths.trial(first), "frozen") == [
        "it belongs to trial 1 of kept, not to trial 0 of kept"
    ]


def test_a_seal_that_is_damaged_itself(begun):
    study = begun()
    number = study.start()
    study.leave(number, Outcome.INTERRUPTED)
    seal = study.paths.trial(number).frozen / "seal.json"
    for content in ("{", "[]", '{"of": "x", "files": {"a": 3}}'):
        seal.write_text(content)
        assert "is damaged" in broken_seal(seal.parent, owner("kept", number))[0]


def test_a_collected_adapter_is_told_from_one_that_never_was(begun):
    study = begun()
    complete, pruned = study.end(), study.end(outcome=Outcome.PRUNED)
    study.database.artifacts.forget("kept", complete)
    discard(study.paths.trial(complete).adapter)
    with pytest.raises(StudyStateError, match=r"removed by the study's keep policy \(best 3\)"):
        require_weights(study.database, "kept", study.paths.trial(complete), {})
    with pytest.raises(StudyStateError, match="saved no adapter; only complete trials do"):
        require_weights(study.database, "kept", study.paths.trial(pruned), {})


def test_a_folder_is_replaced_and_discarded_whole(tmp_path):
    with new_folder(tmp_path / "a") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("1")
    with new_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    discard(tmp_path / "a")
    discard(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
