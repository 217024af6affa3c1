"""Adapters in study files: every kind by its word, options searched by name, and what cannot work refused."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from sweeper.config.adapter import ADAPTERS, Adapter, LoRA, Prefix, PTuning, QLoRA
from sweeper.config.choice import combination_fault, variants
from sweeper.config.loader import load_study
from sweeper.config.space import Choice, Fixed, FloatRange, IntRange
from sweeper.errors import StudyFileError

ADAPTER = TypeAdapter(Adapter)


@pytest.fixture
def study(tmp_path):
    def load(adapter: str, space: str = "", further: str = ""):
        path = tmp_path / "study.yaml"
        searched = f"search:\n  space: {space}\n" if space else ""
        path.write_text(f"name: a\nmodel: m\ndata: {{train: t.jsonl}}\nadapter: {adapter}\n{searched}{further}")
        return load_study(path).config

    return load


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_word_is_a_kind_and_every_kind_survives_json(kind):
    adapter = ADAPTER.validate_python(kind)
    assert type(adapter) is ADAPTERS[kind]
    assert ADAPTER.validate_json(adapter.model_dump_json()) == adapter


def test_what_the_kinds_can_be_asked():
    of = {kind: of() for kind, of in ADAPTERS.items()}
    assert {name for name, adapter in of.items() if adapter.hyperparameters} == {"lora", "qlora", "loha"}
    assert {name for name, adapter in of.items() if adapter.is_prompt_learning} == {"prefix", "prompt", "p_tuning"}
    assert {name for name, adapter in of.items() if adapter.is_prompt_learning} == {"prefix", "prompt", "p_tuning"}
    assert {name for name, adapter in of.items() if adapter.is_full} == {"full"}
    assert {name for name, adapter in of.items() if not adapter.can_checkpoint} == {"prefix"}
    assert {name for name, adapter in of.items() if adapter.changes_base} == set()
    assert LoRA(init="pissa").changes_base and LoRA(init="olora").changes_base
    assert (of["prompt"].extra_tokens, of["lora"].extra_tokens) == (20, 0)


REFUSED = {
    "{kind: lora, init: loftq}": "compensates for the quantisation of the base; use it with adapter qlora",
    "{kind: qlora, init: pissa}": "quantisation would round the change away; use adapter lora",
    "{kind: qlora, init: olora}": "quantisation would round the change away; use adapter lora",
    "{kind: qlora, init: orthogonal}": "needs a dense base; use adapter lora",
    "{kind: qlora, quantization: int8, init: loftq}": "use quantization nf4 or fp4",
    "{kind: qlora, quantization: int8, dora: true}": "use quantization nf4 or fp4",
    "{kind: lora, init: pissa, dora: true}": "use one of the two",
    "{kind: lora, init: pisa}": "must be one of default, gaussian",
    "{kind: lora, lora_plus: 0.5}": "must be greater than or equal to 1",
    "{kind: prompt, init: text}": "needs an init_text",
    "{kind: prefix, virtual_tokens: 0}": "must be greater than or equal to 1",
    "{kind: full, quantization: nf4}": "unknown key",
    "{kind: prefix, lora_rank: 8}": "unknown key; allowed are double_quantization, kind, projection",
    "prefx": "did you mean prefix?",
}


@pytest.mark.parametrize("adapter", REFUSED)
def test_what_cannot_work_is_refused_with_its_reason(study, adapter):
    with pytest.raises(StudyFileError) as caught:
        study(adapter)
    assert REFUSED[adapter] in str(caught.value)
    assert [(fault.field.split(".")[0], fault.line) for fault in caught.value.faults] == [("adapter", 4)]


def test_a_prefix_lives_in_the_cache_and_virtual_tokens_come_once_a_row(study):
    with pytest.raises(StudyFileError, match=r"checkpointing drops the cache that holds the prefix; use `auto`"):
        study("prefix", further="technique: {kind: sft, gradient_checkpointing: true}\n")
    for kind in ("prefix", "prompt", "p_tuning"):
        with pytest.raises(StudyFileError, match=r"only the first of the packed documents would have them"):
            study(kind, further="technique: {kind: sft, packing: true}\n")
    assert study("prompt", further="technique: {kind: sft, gradient_checkpointing: true}\n")


def test_options_are_searched_by_their_name(study):
    space = study("lora", "{dora: [true, false], init: [default, gaussian], lora_plus: {low: 1, high: 32, log: true}}")
    assert space.search.space["dora"] == Choice(choice=(True, False))
    assert study("prefix", "{virtual_tokens: {low: 4, high: 32}, projection: true}").search.space.keys() == {
        "virtual_tokens",
        "projection",
    }
    widths = study("p_tuning", "{encoder_size: {low: 64, high: 256, log: true}}").search.space
    assert widths["encoder_size"] == IntRange(low=64, high=256, log=True)


SPACE_FAULTS = [
    ("prefix", "{lora_rank: [8, 16]}", "lora_rank: belongs to lora, qlora, loha, and the study's adapter is prefix"),
    ("full", "{target_modules: all-linear}", "its own options are: none"),
    ("lora", "{virtual_tokens: [8, 20]}", "is an option of prefix and prompt and p_tuning, and the study's adapter is"),
    ("qlora", "{quantization: [nf4, fp4]}", "applies to the base, which all trials share"),
    ("lora", "{dora: [maybe]}", "found 'maybe'"),
    ("lora", "{init: [default, pisa]}", "found 'pisa'"),
    ("lora", "{dora: {low: 0, high: 1}}", "must be a value or a choice, not a range"),
    ("prefix", "{virtual_tokens: {low: 0.5, high: 8.5}}", "must be an integer range"),
    ("prefix", "{virtual_tokens: {low: 0, high: 8}}", "found 0"),
    ("prefix", "{projection_size: {low: 0.5, high: 64.5}}", "must be an integer range"),
    ("prefix", "{projection_size: [0, 64]}", "found 0"),
    ("prefix", "{virtual_token: 8}", "did you mean virtual_tokens?"),
    ("lora", "{lora_plus: [0.5, 16]}", "greater than or equal to 1; found 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("adapter", "space", "message"), SPACE_FAULTS)
def test_what_cannot_be_searched_is_refused_at_its_line(study, adapter, space, message):
    with pytest.raises(StudyFileError) as caught:
        study(adapter, space)
    assert message in str(caught.value)
    assert [fault.line for fault in caught.value.faults] == [6]


def test_variants_are_every_combination_that_the_conditions_allow():
    space = {
        "init": Choice(choice=("default", "pissa")),
        "dora": Choice(choice=(True, False), when={"init": ("default",)}),
        "learning_rate": FloatRange(low=1e-4, high=1e-3),
    }
    found = list(variants(LoRA(), space))
    assert found == [LoRA(dora=True), LoRA(), LoRA(init="pissa")]
    assert list(variants(LoRA(), {})) == [LoRA()]
    ends = list(variants(Prefix(), {"virtual_tokens": IntRange(low=2, high=64)}))
    assert [adapter.virtual_tokens for adapter in ends] == [2, 64]
    elsewhere = {"lora_plus": Fixed(value=16, when={"lora_rank": (8,)})}
    assert [adapter.lora_plus for adapter in variants(QLoRA(), elsewhere)] == [16, None]


def test_a_combination_that_cannot_work_is_found_before_it_is_drawn():
    space = {"dora": Choice(choice=(True, False)), "init": Choice(choice=("default", "pissa"))}
    name, message = combination_fault(LoRA(), space)
    assert (name, message.split(" subtracts")[0]) == ("dora", "init pissa")
    apart = {**space, "dora": Choice(choice=(True, False), when={"init": ("default",)})}
    assert combination_fault(LoRA(), apart) is None


def test_options_chosen_make_a_definite_adapter():
    chosen = {"learning_rate": 1e-3, "virtual_tokens": 8.0, "encoder": "lstm"}
    assert PTuning(encoder_size=64).with_options(chosen) == PTuning(encoder_size=64, virtual_tokens=8, encoder="lstm")
    with pytest.raises(ValidationError, match="use one of the two"):
        LoRA(dora=True).with_options({"init": "pissa"})
