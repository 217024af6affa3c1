"""Folders that are refused, each with a message that names the fault."""

from __future__ import annotations

import json
import struct

import pytest

from sweeper.errors import ModelError
from sweeper.models.folder import check_folder, read_headers, weight_files


def refused(folder, message, **options):
    with pytest.raises(ModelError, match=message) as caught:
        check_folder(folder, **options)
    assert str(folder) in str(caught.value)


def write_safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_sound_folder_passes(tiny):
    check_folder(tiny)


@pytest.mark.parametrize("content", ["{", "[]", "\x00", "[" * 100_000])
def test_config_that_is_no_json_object(tiny, content):
    (tiny / "config.json").write_text(content)
    refused(tiny, "config.json")


def test_folder_without_config(tiny):
    (tiny / "config.json").unlink()
    refused(tiny, "has no config.json")


def test_an_adapter_folder_is_no_base_model(tiny):
    (tiny / "config.json").rename(tiny / "adapter_config.json")
    refused(tiny, "holds an adapter")


def test_folder_without_weights(tiny):
    (tiny / "model.safetensors").unlink()
    refused(tiny, "has no weights")


def test_pickled_weights_are_refused_and_never_opened(tiny):
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    refused(tiny, r"pickled weights.*save_pretrained")


def test_custom_code_needs_trust(tiny, edit_json):
    edit_json(tiny / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    refused(tiny, "trust_remote_code")
    check_folder(tiny, trust_remote_code=True)


def test_custom_tokenizer_code_needs_trust(tiny, edit_json):
    edit_json(tiny / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Evil", None]})
    refused(tiny, r"tokenizer_config.json.*auto_map")


def test_folder_without_tokenizer(tiny):
    (tiny / "tokenizer.json").unlink()
    refused(tiny, "has no tokenizer")


def test_missing_shard(tiny):
    (tiny / "model.safetensors").rename(tiny / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tiny, "has no model-00002-of-00002.safetensors")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..\\outside.safetensors"])
def test_a_shard_outside_the_folder_is_refused(tiny, name):
    (tiny / "model.safetensors").rename(tiny.parent / "outside.safetensors")
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="outside its folder"):
        weight_files(tiny)


def test_weights_cut_short(tiny):
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(tiny, "cut short")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "not a sound safetensors"),
        (b"[" * 100_000, b"", "not a sound safetensors"),
        ([], b"", "not a sound safetensors"),
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, b"0" * 12, "invalid offset for tensor `b`"),
        ({"a": {**F32, "data_offsets": [4, 12]}}, b"0" * 12, "invalid offset for tensor `a`"),
        ({"a": F32}, b"0" * 9, "not fully covered"),
        ({"a": {**F32, "shape": [3]}}, b"0" * 8, "invalid shape, data type, or offset"),
        ({"a": {**F32, "shape": [-2]}}, b"0" * 8, "invalid value"),
        ({"a": {**F32, "dtype": "PICKLE"}}, b"0" * 8, "unknown variant `PICKLE`"),
        ({"a": {"dtype": "F32"}}, b"", "not a sound safetensors"),
        ({"a": 3}, b"", "not a sound safetensors"),
    ],
)
def test_unsound_headers(tmp_path, header, data, message):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, header, data)
    with pytest.raises(ModelError, match=message):
        read_headers(path)


@pytest.mark.parametrize("content", [b"", b"1234", struct.pack("<Q", 2**63) + b"{}"])
def test_header_length_beyond_the_file(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"header too (small|large)"):
        read_headers(path)
