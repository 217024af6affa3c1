"""What a machine cannot serve is refused with the reason and the remedy, before anything is looked for or loaded."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sweeper import compatibility as support
from sweeper.config.backend import DeepSpeed, processes
from sweeper.config.loader import load_study
from sweeper.config.space import Fixed
from sweeper.config.study import StudyConfig
from sweeper.errors import HardwareError, StudyFileError
from sweeper.hardware import Gpu
from sweeper.packing.obstacles import obstacle_in_study

HOPPER, AMPERE, TURING = (Gpu(name, capability=number) for name, number in (("H", 9.0), ("A", 8.6), ("T", 7.5)))
LORA = {"kind": "lora"}


def study(**parts) -> StudyConfig:
    model = {"name": "m", **parts.pop("model", {})}
    return StudyConfig.model_validate({"name": "s", "model": model, "data": {"train": "t.jsonl"}, **parts})


@pytest.fixture
def installed(monkeypatch):
    """Let packages seem installed, and no others."""

    def only(*modules: str) -> None:
        monkeypatch.setattr(support, "find_spec", lambda name: name if name in modules else None)

    only()
    return only


def reasons(device="cpu", gpus=(), **parts) -> list[str]:
    return support.study_refusals(study(**parts), device, gpus)


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"model": {"dtype": "float16"}}, "float16, which the CPU does not train in"),
        ({"model": {"attention": "flash_attention_2"}}, "flash_attention_2, which needs a CUDA device; use sdpa"),
        ({"model": {"attention": "flash_attention_3"}}, "flash_attention_3, which needs a CUDA device; use sdpa"),
        ({"model": {"attention": "flex_attention"}}, "no backward pass on the CPU; use sdpa"),
        ({"backend": {"kind": "trl", "liger": True}}, "backend.liger needs a CUDA device"),
        ({"backend": "unsloth"}, "backend: unsloth needs a CUDA device"),
        (
            {"backend": {"kind": "deepspeed", "stage": 3}, "adapter": {"kind": "qlora", "quantization": "int8"}},
            "stage 3 does not train an int8 base correctly",
        ),
        ({"backend": {"kind": "deepspeed", "offload": "optimizer"}}, "moves state to main memory"),
        ({"backend": "deepspeed", "model": {"dtype": "bfloat16"}}, "float32 on the CPU; use"),
        ({"backend": "fsdp"}, "fsdp trains a quantised base with other results"),
    ],
)
def test_what_the_cpu_does_not_do(installed, parts, words):
    installed("deepspeed", "unsloth", "liger_kernel", "flash_attn", "flash_attn_interface")
    (reason,) = reasons(**parts)
    assert words in reason
    with pytest.raises(HardwareError, match=r"; use |leave"):
        support.require(study(**parts), "cpu", ())


@pytest.mark.parametrize(
    "parts, remedy",
    [
        ({"model": {"attention": "flash_attention_2"}}, "pip install flash-attn"),
        ({"model": {"attention": "flash_attention_3"}}, "pip install flash-attn-3"),
        ({"backend": {"kind": "trl", "liger": True}}, r"pip install 'sweeper[liger]'"),
        ({"backend": {"kind": "deepspeed", "processes": 1}}, r"pip install 'sweeper[deepspeed]'"),
        ({"backend": "unsloth"}, "pip install --no-deps unsloth"),
    ],
)
def test_a_missing_package_is_named(installed, parts, remedy):
    (reason,) = reasons("cuda:0", (HOPPER,), **parts)
    assert "not installed here" in reason
    assert remedy in reason
    installed("deepspeed", "unsloth", "liger_kernel", "flash_attn", "flash_attn_interface")
    assert reasons("cuda:0", (HOPPER,), **parts) == []


@pytest.mark.parametrize(
    "gpu, attention, words",
    [
        (AMPERE, "flash_attention_3", "compute capability 9.0, and cuda:0 has 8.6"),
        (TURING, "flash_attention_2", "compute capability 8.0, and cuda:0 has 7.5"),
    ],
)
def test_older_gpus_lack_newer_attention(installed, gpu, attention, words):
    installed("flash_attn", "flash_attn_interface")
    assert words in reasons("cuda:0", (gpu,), model={"attention": attention})[0]


@pytest.mark.parametrize(
    "gpu, modules, dtype, best",
    [
        (HOPPER, ("flash_attn", "flash_attn_interface"), "bfloat16", "flash_attention_3"),
        (HOPPER, ("flash_attn",), "bfloat16", "flash_attention_2"),
        (AMPERE, ("flash_attn", "flash_attn_interface"), "float16", "flash_attention_2"),
        (HOPPER, ("flash_attn", "flash_attn_interface"), "float32", "sdpa"),
        (TURING, ("flash_attn",), "float16", "sdpa"),
        (HOPPER, (), "bfloat16", "sdpa"),
    ],
)
def test_auto_is_the_newest_attention_that_runs(installed, gpu, modules, dtype, best):
    installed(*modules)
    assert support.best_attention("cuda:0", dtype, gpu.capability) == best
    assert support.best_attention("cpu", dtype, None) == "sdpa"


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"backend": {"kind": "fsdp", "processes": 3}}, "processes is 3, but there are 2 GPUs"),
        (
            {"backend": {"kind": "fsdp", "processes": 2}, "executor": {"device": "cuda:1"}},
            "the processes of a trial take the first GPUs",
        ),
        ({"backend": "fsdp", "model": {"dtype": "float16"}}, "does not scale the loss"),
        ({"backend": "unsloth", "adapter": {"kind": "qlora", "quantization": "int8"}}, "quantises to nf4"),
        ({"backend": "unsloth", "model": {"attention": "eager"}}, "chooses the attention itself"),
    ],
)
def test_what_does_not_go_together_on_gpus(installed, parts, words):
    installed("unsloth")
    device = parts.get("executor", {}).get("device", "cuda:0")
    (reason,) = reasons(device, (HOPPER, HOPPER), **{"adapter": LORA, **parts})
    assert words in reason


def test_compile_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no no-such-compiler on the path" in reasons(backend={"kind": "trl", "compile": True})[0]


def test_offload_of_parameters_needs_stage_3():
    with pytest.raises(ValidationError, match="offload: parameters needs stage: 3"):
        study(backend={"kind": "deepspeed", "offload": "parameters"})


def test_processes_are_every_gpu_unless_said():
    assert [processes(study(backend="fsdp").backend, gpus) for gpus in (0, 1, 4)] == [1, 1, 4]
    assert processes(DeepSpeed(processes=3), 0) == 3
    assert processes(study().backend, 4) == 1


@pytest.mark.parametrize(
    "backend, words",
    [
        ("fsdp", "its own processes"),
        ({"kind": "trl", "compile": True}, "liger and compile"),
        ({"kind": "trl", "liger": True}, "liger and compile"),
    ],
)
def test_only_plain_trl_is_packed(backend, words):
    assert words in obstacle_in_study(study(backend=backend), {"learning_rate": Fixed(value=1e-3)})
    assert obstacle_in_study(study(backend="trl"), {}) is None


@pytest.mark.parametrize(
    "field, place",
    [
        ("deepspeed", "backend"),
        ("fsdp", "backend"),
        ("use_liger_kernel", "backend.liger"),
        ("torch_compile", "backend.compile"),
    ],
)
def test_trls_own_fields_point_to_the_backend(tmp_path, field, place):
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nmodel: m\ndata: {{train: t.jsonl}}\nsearch: {{space: {{{field}: [true, false]}}}}\n")
    with pytest.raises(StudyFileError, match=f"use {place} instead"):
        load_study(path)


def test_memory_is_that_of_one_process(study_file):
    from sweeper.check.report import check_study

    def figures(**parts):
        space = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "lora_rank": 2}
        return check_study(study_file(search={"space": space, "n_trials": 1}, **parts)).figures["memory"]

    alone, spread = figures(), figures(backend={"kind": "fsdp", "processes": 2})
    assert spread["base"] == alone["base"] // 2
    assert (alone["micro_batch"], spread["micro_batch"]) == (8, 4)


def test_workers_that_cannot_be_started_from_here_are_refused(installed):
    two = (HOPPER, AMPERE)
    support.require_workers(study(executor={"kind": "per_gpu", "devices": 2}), two)
    with pytest.raises(HardwareError, match=r"executor.devices asks for cuda:2, .* only 2"):
        support.require_workers(study(executor={"kind": "per_gpu", "devices": 3}), two)
    with pytest.raises(HardwareError, match=r"executor: ray needs the package ray, .* pip install 'sweeper\[ray\]'"):
        support.require_workers(study(executor="ray"), two)
    installed("ray")
    support.require_workers(study(executor="ray"), two)


def test_a_device_is_named_once_for_one_worker():
    with pytest.raises(ValidationError, match="names a device twice"):
        study(executor={"kind": "per_gpu", "devices": ["cuda:0", "cuda:0"]})
