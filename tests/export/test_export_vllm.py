from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from sweeper.config.adapter import IA3, Full, Prompt, QLoRA
from sweeper.errors import ExportError
from sweeper.export import export, vllm


def command_in(folder) -> list[str]:
    code = (folder / "README.md").read_text().split("```bash\n")[1].split("```")[0]
    return shlex.split(code, comments=True)


def value(command, option):
    return command[command.index(option) + 1]


def changed_config(source, folder, **fields):
    """The source with other fields in its adapter's configuration."""
    folder.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).write_bytes((source.adapter_folder / file).read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    return replace(source, adapter_folder=folder)


def test_the_readme_has_the_command_that_serves_the_folder(make_source, tmp_path):
    source = make_source(dtype="bfloat16")
    exported = export(source, "vllm", tmp_path / "out")
    command = command_in(exported.folder)
    assert command[:3] == ["vllm", "serve", "someone/tiny-llama"] and "--enable-lora" in command
    assert value(command, "--revision") == "abc123" and value(command, "--dtype") == "bfloat16"
    assert value(command, "--max-lora-rank") == "8"  # the least of vLLM's ranks that rank 4 fits into
    assert value(command, "--lora-modules") == "numbers=." and "--quantization" not in command
    template = (exported.folder / value(command, "--chat-template")).read_text()
    assert template == vllm._template(source)
    here = next(note for note in exported.notes if note.startswith("serve it: "))
    assert str(source.base.folder) in here and f"numbers={exported.folder}" in here and "--revision" not in here


def test_a_base_in_nf4_is_quantised_by_the_server_and_another_is_remarked_on(make_source, tmp_path):
    nf4 = export(make_source(adapter=QLoRA(), dtype="bfloat16"), "vllm", tmp_path / "nf4")
    assert value(command_in(nf4.folder), "--quantization") == "bitsandbytes"
    int8 = export(make_source(adapter=QLoRA(quantization="int8"), dtype="bfloat16"), "vllm", tmp_path / "int8")
    assert "--quantization" not in command_in(int8.folder)
    assert "quantised to int8" in (int8.folder / "README.md").read_text() and "quantised to int8" in int8.notes[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["score"]}, "layers that were trained in full"),
        ({"r": 1024}, r"rank 1024 \(at most 512\)"),
        ({"rank_pattern": {"q_proj": 2}}, "a rank for each layer"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_what_vllm_does_not_support_is_refused(make_source, tmp_path, fields, words):
    source = changed_config(make_source(), tmp_path / "v1", **fields)
    with pytest.raises(ExportError, match=f"does not support {words}; use --format merged"):
        export(source, "vllm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("adapter", "remedy"),
    [(IA3(), "this is ia3: use --format merged"), (Prompt(), "use --format adapter"), (Full(), "every weight was")],
)
def test_only_lora_is_served(make_source, tmp_path, adapter, remedy):
    with pytest.raises(ExportError, match=remedy):
        export(make_source(adapter=adapter), "vllm", tmp_path / "out")


def test_a_changed_export_does_not_verify(make_source, tmp_path):
    source = make_source()
    folder = export(source, "vllm", tmp_path / "out").folder
    assert vllm.verify(source, folder)
    readme = (folder / "README.md").read_text()
    (folder / "README.md").write_text(readme.replace("--max-lora-rank 8", "--max-lora-rank 1"))
    with pytest.raises(ExportError, match="has not the command"):
        vllm.verify(source, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ExportError, match="is not the base's"):
        vllm.verify(source, folder)
