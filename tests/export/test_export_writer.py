from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from sweeper.errors import ExportError
from sweeper.export import FORMATS, export
from sweeper.export.writer import MANIFEST
from sweeper.files.atomic import read_json
from sweeper.files.checksums import sha256_of


def snapshot(folder):
    return {path.name: sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_an_unknown_format_names_the_known(make_source, tmp_path):
    with pytest.raises(ExportError, match="choose from trl, axolotl, llama-factory, adapter, vllm, merged"):
        export(make_source(), "gguf", tmp_path / "out")
    assert set(FORMATS) == {"trl", "axolotl", "llama-factory", "adapter", "vllm", "merged"}


def test_the_manifest_lists_what_was_written(make_source, tmp_path):
    exported = export(make_source(), "adapter", tmp_path / "deep" / "out")
    manifest = read_json(exported.folder / MANIFEST)
    assert manifest["format"] == "adapter"
    assert manifest["files"]["README.md"] == sha256_of(exported.folder / "README.md")
    assert (exported.folder.stat().st_mode & 0o777) == 0o777 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_folder_in_use_is_kept(make_source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(make_source(), "adapter", out)
    before = snapshot(out)
    with pytest.raises(ExportError, match="not empty"):
        export(make_source(), "trl", out)
    assert snapshot(out) == before
    assert export(make_source(), "trl", out, force=True).folder == out
    assert (out / "trl.yaml").is_file() and not (out / "README.md").exists()


def test_force_never_replaces_what_no_export_wrote(make_source, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    with pytest.raises(ExportError, match="no export wrote"):
        export(make_source(), "adapter", home, force=True)
    assert (home / "thesis.txt").read_text() == "years"


def test_a_failed_replacement_leaves_the_earlier_export(make_source, tmp_path):
    out = export(make_source(), "adapter", tmp_path / "out").folder
    before = snapshot(out)
    with pytest.raises(ExportError):
        export(replace(make_source(), adapter_folder=tmp_path / "gone"), "adapter", out, force=True)
    assert snapshot(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_refused(make_source, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("a file")
    else:
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match="file or a link"):
        export(make_source(), "adapter", out, force=True)


def test_the_sources_are_never_overwritten(make_source, tiny_base, tiny_adapter):
    for out in (tiny_adapter, tiny_base.parent):
        before = snapshot(out)
        with pytest.raises(ExportError, match="holds files to be exported"):
            export(make_source(), "adapter", out, force=True)
        assert snapshot(out) == before


def test_a_parent_that_is_a_file_is_named(make_source, tmp_path):
    (tmp_path / "parent").write_text("a file")
    with pytest.raises(ExportError, match="cannot write the export"):
        export(make_source(), "adapter", tmp_path / "parent" / "out")


def test_changed_data_is_refused(make_source, tmp_path):
    source = make_source()
    source.train.path.write_text(source.train.path.read_text() + "\n")
    for format in ("trl", "axolotl", "llama-factory"):
        with pytest.raises(ExportError, match="not the file the study trained on"):
            export(source, format, tmp_path / "out")
    source.train.path.unlink()
    with pytest.raises(ExportError, match="missing"):
        export(source, "trl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_leaves_nothing(make_source, tmp_path, monkeypatch):
    from sweeper.export import card

    def write_to_full_disk(*content):
        with open("/dev/full", "w") as file:
            file.write("a card")

    monkeypatch.setattr("sweeper.export.adapter.write_card", write_to_full_disk)
    assert card.write_card is not write_to_full_disk
    with pytest.raises(ExportError, match="No space left"):
        export(make_source(), "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_importing_the_room_loads_no_torch():
    code = "import sweeper.export, sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("format", "file"), [("trl", "trl.yaml"), ("axolotl", "axolotl.yaml"), ("llama-factory", "llama_factory.yaml")]
)
def test_a_recipe_says_that_the_version_began_elsewhere(make_source, tmp_path, format, file):
    source = make_source()
    note = "this version began from the weights of trial 3: it does not train the same again"
    plain = export(source, format, tmp_path / "plain")
    assert not [each for each in plain.notes if note in each]
    initial = tmp_path / "trials" / "00003" / "adapter"
    begun = replace(source, spec=source.spec.model_copy(update={"initial_adapter": initial}))
    exported = export(begun, format, tmp_path / "begun")
    assert [each for each in exported.notes if note in each]
    assert note in (exported.folder / file).read_text() and note not in (plain.folder / file).read_text()
