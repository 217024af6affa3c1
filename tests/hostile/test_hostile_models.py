"""Hostile models and adapters, each fed to ``sweeper check``, to the registry or to what loads them.

Where an item of the list is tested: F is ``tests/models/test_models_folder.py``, R ``tests/registry/test_registry.py``,
C ``tests/check/test_check_command.py``; "here" stands below.

=============================================  ==============================================================
a folder without weights                       F ``test_folder_without_weights``; here (by the command line)
``config.json`` that is not JSON               F ``test_config_that_is_no_json_object``; C; here (FIFO, sizes)
a pickle where safetensors are due             F, C (models); R ``test_unfit_folders_are_refused`` (adapters); here
safetensors: header beyond the file            F ``test_header_length_beyond_the_file``; R; here
safetensors: overlaps, shapes, types           F ``test_unsound_headers``; here (shapes and types of another model)
an adapter of another base                     here
``auto_map`` or custom code without trust      F ``test_custom_code_needs_trust``; here
no pad token; no chat template                 here; C ``test_chats_without_a_template``
a rank above the layer's size                  C ``test_rank_too_high``
a target module that does not exist            C ``test_target_module_that_does_not_exist``
=============================================  ==============================================================
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from check_helpers import refused
from safetensors.numpy import load_file, save_file

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def check(sweeper, write_study, folder):
    """Check the study on its spoilt model; nothing may be written by it."""

    def run(extra: str = "") -> Any:
        path = write_study(extra)
        before = sorted(folder.parent.rglob("*"))
        result = sweeper("check", path)
        assert sorted(folder.parent.rglob("*")) == before
        return result

    return run


@pytest.fixture
def tiny(folder) -> Path:
    return folder / "tiny"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


def test_a_folder_without_weights(check, tiny):
    (tiny / "model.safetensors").unlink()
    refused(check(), f"{tiny} has no weights: neither model.safetensors nor model.safetensors.index.json")


def test_an_empty_folder(check, tiny):
    shutil.rmtree(tiny)
    tiny.mkdir()
    refused(check(), f"{tiny} has no config.json")


PICKLE = b"cos\nsystem\n(S'touch OWNED'\ntR."


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt", "model.pkl"])
def test_pickles_are_refused_and_never_opened(check, tiny, name):
    (tiny / "model.safetensors").unlink()
    (tiny / name).write_bytes(PICKLE.replace(b"OWNED", str(tiny / "owned").encode()))
    refused(check(), f"{tiny} has only pickled weights ({name}), which can run code when loaded: refused")
    assert not (tiny / "owned").exists()


def test_a_pickle_named_as_safetensors(check, tiny):
    (tiny / "model.safetensors").write_bytes(PICKLE)
    refused(check(), "model.safetensors is not a sound safetensors file")


def test_an_index_that_names_a_pickle(check, tiny):
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(PICKLE)
    edit(tiny / "model.safetensors.index.json", weight_map={"a": "pytorch_model.bin"})
    refused(check(), "pytorch_model.bin is not a sound safetensors file")


class TestConfiguration:
    """``config.json`` and the other files of settings."""

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
    @pytest.mark.parametrize(
        "content", [b"{", b"\xff\xfe{}", b"[]", b"[" * 100_000, b'{"a":' * 5000, b"\0", b"9" * 5000]
    )
    def test_what_is_no_json_object(self, check, tiny, name, content):
        (tiny / name).write_bytes(content)
        refused(check(), str(tiny / name))

    @pytest.mark.parametrize(
        "name",
        ["config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors",
         "model.safetensors.index.json"],
    )  # fmt: skip
    def test_a_pipe_is_not_waited_for(self, write_study, tiny, name):
        """In a process of its own, which a wait would not end."""
        (tiny / name).unlink(missing_ok=True)
        if name == "model.safetensors.index.json":
            (tiny / "model.safetensors").unlink()
        os.mkfifo(tiny / name)
        command = [sys.executable, "-m", "sweeper", "check", str(write_study())]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert name in done.stderr

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"])
    def test_a_file_too_large_for_what_it_is(self, check, tiny, name):
        with (tiny / name).open("wb") as file:
            file.truncate(600 << 20)  # sparse: takes no room
        refused(check(), str(tiny / name), "is too large")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"hidden_size": "32"}, "has no hidden_size"),
            ({"hidden_size": -1}, "has no hidden_size"),
            ({"hidden_size": 1.5}, "has no hidden_size"),
            ({"hidden_size": 10**400}, "hidden_size"),
            ({"vocab_size": 10**15}, "vocab_size"),
            ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
            ({"num_attention_heads": 10**6}, "num_attention_heads"),
            ({"architectures": {"a": 1}}, "architectures"),
            ({"architectures": 3}, "architectures"),
            ({"architectures": [[]]}, "architectures"),
            ({"text_config": {"hidden_size": None}}, "has no hidden_size"),
        ],
    )
    def test_sizes_that_cannot_be(self, check, tiny, changes, words):
        edit(tiny / "config.json", **changes)
        refused(check(), str(tiny / "config.json"), words)

    @pytest.mark.parametrize(
        "template",
        [{"a": 1}, [1], [{"name": []}], [{"name": "default", "template": 3}], "{% for %}", "{{ messages", "\x00{{"],
    )
    def test_chat_templates_that_are_none(self, check, tiny, template):
        edit(tiny / "tokenizer_config.json", chat_template=template)
        refused(check(), str(tiny), "chat template")

    def test_a_chat_template_that_is_not_utf8(self, check, tiny):
        (tiny / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
        refused(check(), str(tiny / "chat_template.jinja"), "UTF-8")

    def test_special_tokens_that_are_no_text(self, check, tiny):
        edit(tiny / "tokenizer_config.json", eos_token=[1], bos_token={"content": 3}, pad_token=None)
        assert check().exit_code == 0


class TestSafetensors:
    """The file with the weights."""

    def write(self, path: Path, header: object, data: bytes) -> None:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    def test_a_header_length_beyond_the_file(self, check, tiny):
        (tiny / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
        refused(check(), "model.safetensors is not a sound safetensors file")

    def test_overlapping_tensors(self, check, tiny):
        one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        self.write(tiny / "model.safetensors", {"a": one, "b": {**one, "data_offsets": [4, 12]}}, b"0" * 12)
        refused(check(), "invalid offset for tensor `b`")

    def test_the_same_name_twice(self, check, tiny):
        entry = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
        text = b"{" + entry + b"," + entry.replace(b"[0,8]", b"[8,16]") + b"}"
        (tiny / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"0" * 16)
        refused(check(), "model.safetensors is not a sound safetensors file", "invalid offset")

    @pytest.mark.parametrize("entry", [{"dtype": []}, {"dtype": {}}, {"shape": 3}, {"shape": [2**64, 2**64]},
                                       {"data_offsets": [0]}, {"data_offsets": [8, 0]}, {"data_offsets": "ab"},
                                       {"shape": [True, 2]}, {"shape": [0.5]}])  # fmt: skip
    def test_entries_that_are_none(self, check, tiny, entry):
        good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        self.write(tiny / "model.safetensors", {"a": {**good, **entry}}, b"0" * 8)
        refused(check(), "model.safetensors is not a sound safetensors file")

    @pytest.mark.long
    def test_very_many_tensors(self, check, tiny):
        empty = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(300_000)}
        self.write(tiny / "model.safetensors", empty, b"")
        refused(check(), "LlamaForCausalLM has no linear layers")

    @pytest.mark.parametrize("at", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
    def test_shapes_of_another_model(self, check, tiny, at):
        tensors = load_file(tiny / "model.safetensors")
        tensors[at] = np.zeros((7, 9), dtype=np.float32)
        save_file(tensors, tiny / "model.safetensors")
        refused(check(), f"{tiny}", f"{at} has the shape 7 x 9", "config.json")

    def test_types_that_are_no_weights(self, check, tiny):
        tensors = load_file(tiny / "model.safetensors")
        tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((64, 32), dtype=np.int64)
        save_file(tensors, tiny / "model.safetensors")
        refused(check(), f"{tiny}", "model.layers.0.mlp.up_proj.weight has type I64")

    def test_a_layer_that_is_missing(self, check, tiny):
        tensors = {name: t for name, t in load_file(tiny / "model.safetensors").items() if ".layers.1." not in name}
        save_file(tensors, tiny / "model.safetensors")
        refused(check(), f"{tiny}", "num_hidden_layers", "2")


class TestCustomCode:
    """Code that comes with a model runs only where the study says so in words."""

    @pytest.fixture(autouse=True)
    def _code(self, tiny):
        (tiny / "modeling.py").write_text(f"open({str(tiny / 'ran')!r}, 'w')\n")
        yield
        assert not (tiny / "ran").exists()

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}),
            ("config.json", {"text_config": {"auto_map": {"AutoModel": "modeling.Evil"}}}),
            ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling.Evil", None]}}),
            ("generation_config.json", {"auto_map": {"a": "modeling.Evil"}}),
            ("processor_config.json", {"auto_map": {"AutoProcessor": "modeling.Evil"}}),
        ],
    )
    def test_auto_map_without_trust(self, check, tiny, name, changes):
        edit(tiny / name, **changes)
        refused(check(), f"{tiny / name} requires Python code that comes with the model (auto_map)")

    def test_trust_that_is_not_said_in_words(self, check, sweeper, write_study, tiny):
        edit(tiny / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Evil"})
        for word in ("yes", "1", '"true"', "null"):
            text = f"name: a\nmodel: {{name: ./tiny, trust_remote_code: {word}}}\ndata: {{train: train.jsonl}}\n"
            result = sweeper("check", write_study(text=text))
            assert result.exit_code == 2, (word, result.output)


@pytest.fixture
def version(begin, tiny_model, tmp_path):
    """A registered version, on a base model that can be changed."""
    from registered import register

    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    return register(begin(model=str(base)))


@pytest.fixture
def another_base(version, tmp_path):
    weights = tmp_path / "base" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "q_proj" in name)
    save_file({**tensors, name: tensors[name] + 1}, weights, metadata={"format": "pt"})
    return tmp_path / "base"


class TestAdapters:
    """Registered versions whose files or whose base were changed since."""

    REFUSED = "was trained on"

    @pytest.mark.parametrize("form", ["merged", "adapter", "trl"])
    def test_an_export_on_another_base_is_refused_by_name(self, version, another_base, sweeper, tmp_path, form):
        result = sweeper("export", version.name, "--format", form, "--out", tmp_path / "out")
        wanted = version.lineage.base_model_fingerprint[:12]
        refused(
            result, f"tiny v1 was trained on {tmp_path}/base ({wanted})", f"{another_base} now holds another base model"
        )
        assert not (tmp_path / "out").exists()

    def test_a_study_that_begins_from_it_is_refused_by_name(self, version, another_base, sweeper, study_file, tmp_path):
        study_file("next", model="adapter:tiny")
        refused(sweeper("check", tmp_path / "next.yaml"), "tiny v1 was trained on", "now holds another base model")

    def test_the_playground_and_rewards_refuse_it_by_name(self, version, another_base):
        from sweeper.errors import RegistryError
        from sweeper.paths import Home
        from sweeper.registry.version import trial_spec

        with pytest.raises(RegistryError, match=r"tiny v1 was trained on .* now holds another base model"):
            trial_spec(Home.current(), version)

    def test_a_pickle_put_beside_its_weights(self, version, sweeper, tmp_path):
        (version.folder / "adapter_model.bin").write_bytes(PICKLE.replace(b"OWNED", str(tmp_path / "owned").encode()))
        result = sweeper("export", version.name, "--format", "adapter", "--out", tmp_path / "out")
        refused(result, "adapter_model.bin was not registered")
        assert not (tmp_path / "owned").exists()

    def test_a_pickle_in_the_place_of_its_weights_is_not_loaded(self, tiny_model, tmp_path):
        from sweeper.config.adapter import LoRA
        from sweeper.config.model import ModelConfig
        from sweeper.errors import ModelError
        from sweeper.training.base_model import load_base

        base = load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu")
        (tmp_path / "adapter_config.json").write_text("{}")
        (tmp_path / "adapter_model.bin").write_bytes(PICKLE.replace(b"OWNED", str(tmp_path / "owned").encode()))
        with (
            pytest.raises(ModelError, match=r"holds no adapter_model.safetensors; sweeper does not load pickled"),
            base.with_adapter(tmp_path),
        ):
            raise AssertionError("it was loaded")
        assert not (tmp_path / "owned").exists()

    def test_an_adapter_that_does_not_fit(self, version, tiny_model, tmp_path):
        from sweeper.config.adapter import LoRA
        from sweeper.config.model import ModelConfig
        from sweeper.errors import ModelError
        from sweeper.training.base_model import load_base

        folder = Path(shutil.copytree(version.folder, tmp_path / "adapter"))
        wide = {name: np.zeros((t.shape[0] + 1, t.shape[1] + 1), t.dtype) for name, t in
                load_file(folder / "adapter_model.safetensors").items()}  # fmt: skip
        save_file(wide, folder / "adapter_model.safetensors")
        base = load_base(tiny_model, ModelConfig(name="tiny"), LoRA(), "cpu")
        before = {name: weight.clone() for name, weight in base.model.named_parameters()}
        with pytest.raises(ModelError, match="does not fit its base model"), base.with_adapter(folder):
            raise AssertionError("it was loaded")
        assert before.keys() == dict(base.model.named_parameters()).keys()  # the base is as it was found


class TestTokenizers:
    """A base model whose tokenizer lacks what training needs."""

    def edited(self, tiny_model: Path, tmp_path: Path, *missing: str) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in missing}))
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
        return folder

    def load(self, folder: Path) -> Any:
        from sweeper.config.adapter import LoRA
        from sweeper.config.model import ModelConfig
        from sweeper.training.base_model import load_base

        return load_base(folder, ModelConfig(name="tiny"), LoRA(), "cpu")

    def test_no_pad_token(self, tiny_model, tmp_path):
        found = self.load(self.edited(tiny_model, tmp_path, "pad_token")).tokenizer
        assert found.pad_token == found.eos_token == "<|im_end|>"

    def test_neither_pad_token_nor_end(self, tiny_model, tmp_path):
        from sweeper.errors import ModelError

        with pytest.raises(ModelError, match="has neither a pad_token nor an eos_token"):
            self.load(self.edited(tiny_model, tmp_path, "pad_token", "eos_token"))

    def test_no_chat_template_for_chats(self, tiny_model, tmp_path, study_file, sweeper):
        folder = self.edited(tiny_model, tmp_path, "chat_template")
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        study_file("chats", shape="messages", model=str(folder))
        result = sweeper("check", tmp_path / "chats.yaml")
        assert result.exit_code == 2, result.output
        assert "the model has no chat template to write them with; use an instruction-tuned model" in result.output
