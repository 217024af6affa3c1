"""What can be known of a study that chooses: ranks and modules of every model, tokenizers, and the whole space."""

from __future__ import annotations

import json
import shutil

import pytest
from check_helpers import write_model

from sweeper.check.report import check_study
from sweeper.config.loader import load_study
from sweeper.errors import ModelNotFoundError, StudyFileError

STUDY = """\
name: letters
model: {choice: [./tiny, ./other]}
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
technique: {kind: sft, max_length: 16}
"""


@pytest.fixture
def other(folder):
    return write_model(folder / "other")


@pytest.fixture
def study(write_study, other):
    return lambda extra="", text=STUDY: load_study(write_study(extra, text))


def faults(file):
    with pytest.raises(StudyFileError) as found:
        check_study(file)
    return {fault.field: (fault.line, fault.message) for fault in found.value.faults}


def narrow(folder):
    """Make the layers of a model half as wide, in its configuration and in its weights' headers."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    halves = {
        name: np.zeros([n if at == 0 and "embed" in name else max(1, n // 2) for at, n in enumerate(tensor.shape)])
        for name, tensor in tensors.items()
    }
    halves = {name: tensor.astype(np.float32) for name, tensor in halves.items()}
    for name in ("hidden_size", "intermediate_size"):
        config[name] //= 2
    (folder / "config.json").write_text(json.dumps(config))
    save_file(halves, folder / "model.safetensors")


def test_a_rank_must_fit_every_model_and_the_fault_names_which(study, other):
    narrow(other)
    file = study("adapter:\n  choice:\n    - lora\n    - kind: qlora\n      space: {lora_rank: [8, 32]}\n")
    line, message = faults(file)["adapter.choice.1.space.lora_rank"]
    assert line == 9
    assert "rank 32 is above what ./other allows" in message and "the largest rank is 16" in message
    assert check_study(study()).figures["space"]["ranges"]["lora_rank"]["choice"] == (8, 16)


def test_a_module_must_be_in_every_model(study):
    own = "adapter:\n  choice:\n    - lora\n    - kind: qlora\n      space: {target_modules: [[qproj]]}\n"
    line, message = faults(study(own))["adapter.choice.1.space.target_modules"]
    assert line == 9 and "did you mean q_proj?" in message


@pytest.mark.parametrize(
    ("evaluation", "field"),
    [
        ("{metric: eval_loss}", "evaluation.metric"),
        ("{metric: exact_match, metrics: [perplexity]}", "evaluation.metrics"),
    ],
)
def test_losses_do_not_compare_models_of_other_tokens(study, other, evaluation, field):
    check_study(study(f"evaluation: {evaluation}\n"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    check_study(study(f"evaluation: {evaluation}\n"))  # how it last cut a text is no difference
    tokenizer["model"]["vocab"]["new"] = 99
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    line, message = faults(study(f"evaluation: {evaluation}\n"))[field]
    assert line == 5 and "different tokens" in message and "exact_match" in message
    check_study(study("evaluation: {metric: exact_match}\n"))


def test_every_model_must_be_found_before_any_is_used(study, other):
    shutil.rmtree(other)
    with pytest.raises(ModelNotFoundError, match="other"):
        check_study(study())


def test_the_check_shows_every_model_and_every_range(study):
    own = "{kind: qlora, space: {learning_rate: {low: 1e-3, high: 1e-2, log: true}}}"
    report = check_study(study(f"adapter: {{choice: [lora, {own}]}}\nevaluation: {{metric: exact_match, goal: 0.9}}\n"))
    shown = {section.title: "\n".join(section.lines) for section in report.sections}
    assert "./tiny: LlamaForCausalLM" in shown["model"] and "./other: LlamaForCausalLM" in shown["model"]
    assert report.figures["model"]["models"].keys() == {"./tiny", "./other"}
    assert "model: one of ./tiny, ./other" in shown["space"]
    assert "qlora.learning_rate: 0.001 to 0.01, log (only if adapter is qlora)" in shown["space"]
    assert "known good: model ./other, adapter qlora, qlora.learning_rate" in shown["space"]
    assert "./other: mean" in shown["tokens"]
    assert "different base models (./tiny dense, ./tiny nf4, ./other dense, ./other nf4)" in shown["memory"]


def test_a_condition_that_cannot_hold_is_found_where_the_file_has_it(study):
    own = """adapter:
  choice:
    - kind: lora
      space:
        lora_rank: [4]
        lora_dropout: {value: 0.1, when: {lora_rank: 8}}
    - qlora
"""
    line, message = faults(study(own))["adapter.choice.0.space.lora_dropout"]
    assert line == 10 and "which it cannot be" in message
