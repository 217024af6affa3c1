"""From preset, data, model and file to the space that is searched."""

from __future__ import annotations

import pytest

from sweeper.config.adapter import Full, LoRA, Prefix, QLoRA
from sweeper.config.search import SearchConfig
from sweeper.config.space import Fixed
from sweeper.config.technique import SFT
from sweeper.errors import UserError
from sweeper.presets.resolution import resolve_space
from sweeper.presets.rules import tinker_learning_rate


def resolve(rows=2000, hidden_size=576, architecture="LlamaForCausalLM", max_rank=None, adapter=None, **search):
    config = SearchConfig.model_validate(search)
    return resolve_space(config, SFT(), adapter or QLoRA(), rows, hidden_size, architecture, max_rank)


def reason(resolved, word):
    return next((line for line in resolved.reasons if word in line), "")


def test_recommended_picks_lora_and_says_why():
    for adapter in (LoRA(), QLoRA()):
        resolved = resolve(adapter=adapter)
        assert resolved.preset == "lora"
        assert f"sft with {adapter.kind}" in resolved.reasons[0]


def test_of_other_adapters_their_options_are_searched_unless_the_file_settles_them():
    space = resolve(adapter=Prefix()).space
    assert space["virtual_tokens"].choice == (8, 20)
    assert "lora_rank" not in space and "target_modules" not in space
    settled = resolve(adapter=Prefix(virtual_tokens=4))
    assert "virtual_tokens" not in settled.space
    assert not any("virtual_tokens" in known for known in settled.known_good)
    assert "virtual_tokens" not in resolve(preset="prompt", adapter=LoRA()).space
    assert "lora_rank" not in resolve(preset="guide", adapter=Full()).space


@pytest.mark.parametrize(("rows", "epochs"), [(20_000, 1), (2000, 1), (1000, 2), (500, 5), (50, 10)])
def test_recommended_fixes_epochs_by_the_steps_the_data_gives(rows, epochs):
    resolved = resolve(rows)
    assert resolved.space["epochs"] == Fixed(value=epochs)
    assert f"epochs fixed at {epochs}" in reason(resolved, "epochs")


def test_few_rows_drop_large_batches():
    resolved = resolve(50, space={"epochs": 3})
    assert resolved.space["batch_size"].choice == (8,)
    assert "batch size 16 and 32 left out" in reason(resolved, "left out")
    assert "only 19 optimizer steps" not in " ".join(resolve(500).reasons)


def test_a_run_too_short_for_any_batch_size_warns():
    assert "only 2 optimizer steps" in reason(resolve(10, space={"epochs": 1}), "warning")


def test_the_file_overrides_by_name_and_is_not_touched_by_rules():
    resolved = resolve(50, max_rank=16, space={"lora_rank": [32, 64], "epochs": [1, 2], "batch_size": [64]})
    assert resolved.space["lora_rank"].choice == (32, 64)
    assert resolved.space["epochs"].choice == (1, 2)
    assert resolved.space["batch_size"].choice == (64,)
    assert "epochs is searched" in reason(resolved, "epochs is")


def test_ranks_above_what_the_model_allows_leave_the_preset():
    assert resolve(max_rank=32).space["lora_rank"].choice == (8, 16, 32)
    assert resolve(max_rank=4).space["lora_rank"].choice == (4,)
    assert all(known["lora_rank"] <= 32 for known in resolve(max_rank=32).known_good)


def test_warmup_of_the_file_removes_the_other_unit():
    assert "warmup_ratio" not in resolve(space={"warmup_steps": 10}).space
    assert "warmup_steps" not in resolve(preset="guide", space={"warmup_ratio": 0.1}).space


def test_guide_warns_of_warmup_beyond_the_run_and_offers_a_ratio():
    resolved = resolve(preset="guide")
    assert "warmup_steps" in resolved.space
    assert "batch size 64 and epochs 1 give 32 steps" in reason(resolved, "warmup_steps reaches 500")
    assert "warmup_ratio" in reason(resolved, "warmup_steps reaches 500")
    assert reason(resolve(1_000_000, preset="guide"), "warmup_steps") == ""


def test_known_good_configurations_are_inside_the_space():
    resolved = resolve(space={"learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}, "lora_rank": 8})
    assert len(resolved.known_good) == 3
    for known in resolved.known_good:
        assert known["learning_rate"] == 1e-4
        assert "lora_rank" not in known  # fixed, so not a matter for the search
        assert all(resolved.space[name].contains(value) for name, value in known.items())


def test_known_good_leaves_out_what_a_condition_switches_off():
    space = {"lora_dropout": {"choice": [0.0, 0.1], "when": {"lora_rank": [64]}}}
    known = resolve(space=space).known_good
    assert [("lora_dropout" in c) for c in known] == [c["lora_rank"] == 64 for c in known]
    assert {True, False} == {"lora_dropout" in c for c in known}


def test_known_good_can_be_switched_off_and_needs_no_model():
    assert resolve(known_good=False).known_good == ()
    assert len(resolve(hidden_size=None).known_good) == 2


@pytest.mark.parametrize(
    ("hidden", "architecture", "rate"), [(4096, "LlamaForCausalLM", 2.9e-4), (4096, "Qwen3ForCausalLM", 4.7e-4)]
)
def test_tinker_rule_gives_its_published_values(hidden, architecture, rate):
    assert tinker_learning_rate(hidden, architecture) == pytest.approx(rate, rel=0.02)


def test_tinker_rule_leads_the_known_good_of_lora():
    assert resolve(hidden_size=4096).known_good[0]["learning_rate"] == pytest.approx(2.86e-4, rel=0.01)


def test_unknown_preset_is_the_users_error():
    with pytest.raises(UserError, match="no preset"):
        resolve(preset="nothing")
