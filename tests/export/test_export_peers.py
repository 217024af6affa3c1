"""Axolotl's and LLaMA-Factory's files, against what ``check_peers.py`` found their own parsers to accept.

Run on Axolotl 0.19.0 (``validate_config`` and ``AxolotlInputConfig.model_fields``) and LLaMA-Factory 0.9.5
(``get_train_args``, ``get_dataset``): every key accepted, all rows tokenised and masked as TRL 1.16 does.
"""

from __future__ import annotations

import json

import pytest
import yaml

from sweeper.config.adapter import IA3, Full, LoRA, Prefix, PTuning, QLoRA
from sweeper.config.technique import SFT
from sweeper.errors import ExportError
from sweeper.export import export
from sweeper.export.rows import Renderer, Segment, read_rows

AXOLOTL_0_19 = """
    adam_beta1 adam_beta2 adam_epsilon adapter attn_implementation base_model bf16 bnb_config_kwargs
    dataset_prepared_path datasets eval_batch_size eval_sample_packing eval_steps excess_length_strategy fp16
    gradient_accumulation_steps gradient_checkpointing greater_is_better learning_rate load_best_model_at_end
    load_in_4bit load_in_8bit logging_steps lora_alpha lora_dropout lora_r lora_target_linear lora_target_modules
    loraplus_lr_ratio lr_scheduler lr_scheduler_kwargs max_grad_norm metric_for_best_model micro_batch_size
    neftune_noise_alpha num_epochs optim_args optimizer output_dir peft_init_lora_weights peft_use_dora
    peft_use_rslora sample_packing save_only_model save_steps save_total_limit seed sequence_len test_datasets
    train_on_inputs trust_remote_code warmup_steps weight_decay"""
LLAMA_FACTORY_0_9_5 = """
    adam_beta1 adam_beta2 adam_epsilon bf16 cutoff_len dataset dataset_dir disable_gradient_checkpointing do_eval
    do_train double_quantization eval_dataset eval_steps eval_strategy finetuning_type flash_attn fp16
    gradient_accumulation_steps greater_is_better label_smoothing_factor learning_rate load_best_model_at_end
    logging_steps lora_alpha lora_dropout lora_rank lora_target loraplus_lr_ratio lr_scheduler_kwargs
    lr_scheduler_type max_grad_norm metric_for_best_model model_name_or_path neat_packing neftune_noise_alpha
    num_train_epochs optim optim_args output_dir packing per_device_eval_batch_size per_device_train_batch_size
    pissa_convert pissa_init pissa_iter quantization_bit quantization_method quantization_type report_to
    save_only_model save_steps save_strategy save_total_limit seed stage template train_on_prompt trust_remote_code
    use_cpu use_dora use_rslora warmup_steps weight_decay"""
KNOWN = {"axolotl": set(AXOLOTL_0_19.split()), "llama-factory": set(LLAMA_FACTORY_0_9_5.split())}


def values(folder) -> dict:
    return yaml.safe_load(next(folder.glob("*.yaml")).read_text())


@pytest.mark.parametrize("adapter", [LoRA(), QLoRA(), QLoRA(quantization="int8")])
@pytest.mark.parametrize("tool", ["axolotl", "llama-factory"])
def test_every_key_is_one_that_the_tool_has(make_source, tmp_path, tool, adapter):
    further = {"adam_beta2": 0.95, "optim": "adamw_torch", "neftune_noise_alpha": 5.0}
    source = make_source(adapter=adapter, hyperparameters={"trl": further})
    found = values(export(source, tool, tmp_path / "out").folder)
    assert set(found) <= KNOWN[tool]
    assert found["adam_beta2"] == 0.95


def test_axolotls_values(make_source, tmp_path):
    source = make_source(adapter=QLoRA(double_quantization=False), dtype="bfloat16")
    out = export(source, "axolotl", tmp_path / "out").folder
    found = values(out)
    assert found["adapter"] == "qlora"
    assert found["bnb_config_kwargs"] == {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False}
    assert found["micro_batch_size"] * found["gradient_accumulation_steps"] == 8
    assert found["warmup_steps"] == 1  # a tenth of 6 steps, rounded up as transformers does
    assert found["lora_target_linear"] is True
    first = next(read_rows(out / "data" / "train.jsonl"))
    assert [part["label"] for part in first["segments"]] == [False, True]


def test_axolotl_calls_int8_lora(make_source, tmp_path):
    found = values(export(make_source(adapter=QLoRA(quantization="int8")), "axolotl", tmp_path / "out").folder)
    assert (found["adapter"], found["load_in_8bit"], found["load_in_4bit"]) == ("lora", True, False)


def test_llama_factorys_values(make_source, tmp_path):
    source = make_source(adapter=QLoRA(), hyperparameters={"target_modules": ("q_proj", "v_proj")})
    out = export(source, "llama-factory", tmp_path / "out").folder
    found = values(out)
    assert (found["quantization_bit"], found["quantization_type"], found["double_quantization"]) == (4, "nf4", True)
    assert (found["lora_target"], found["template"]) == ("q_proj,v_proj", "empty")
    info = json.loads((out / "data" / "dataset_info.json").read_text())
    assert info["train"]["file_name"] == "train.jsonl"


@pytest.mark.parametrize("tool", ["axolotl", "llama-factory"])
def test_what_a_tool_cannot_say_is_noted_or_refused(make_source, tmp_path, tool):
    source = make_source(hyperparameters={"trl": {"loss_type": "dft"}})
    exported = export(source, tool, tmp_path / "noted")
    assert any("loss_type" in note for note in exported.notes)
    assert "loss_type = 'dft'" in next(exported.folder.glob("*.yaml")).read_text()
    with pytest.raises(ExportError, match="whole number for lora_alpha"):
        export(make_source(hyperparameters={"lora_alpha": 1.5}), tool, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_the_loss_on_the_prompt_is_carried_over(make_source, tmp_path):
    source = make_source(technique=SFT(max_length=64, completion_only=False))
    assert values(export(source, "axolotl", tmp_path / "a").folder)["train_on_inputs"] is True
    assert values(export(source, "llama-factory", tmp_path / "b").folder)["train_on_prompt"] is True


def test_a_micro_batch_that_does_not_divide_the_batch_is_lowered(make_source, tmp_path):
    found = values(export(make_source(micro_batch=3), "axolotl", tmp_path / "out").folder)
    assert (found["micro_batch_size"], found["gradient_accumulation_steps"]) == (2, 4)


def test_rows_are_rendered_as_the_trainer_sees_them(make_source):
    chat = make_source("prompt_completion_chat")
    prompt = "<|im_start|>user\nwrite one zero zero<|im_end|>\n<|im_start|>assistant\n"
    first = next(read_rows(chat.train.path))
    assert Renderer(chat)(first) == [Segment(prompt, False), Segment("100<|im_end|>\n", True)]
    turns = [*first["prompt"], *first["completion"]]
    assert [part.learned for part in Renderer(chat)({"messages": turns * 2})] == [False, True, False, True]
    plain = make_source("text")
    whole = [Segment("write one zero zero: 100<|im_end|>", True)]
    assert Renderer(plain)(next(read_rows(plain.train.path))) == whole
    pair = make_source()
    parts = Renderer(pair)(next(read_rows(pair.train.path)))
    assert "".join(part.text for part in parts) == whole[0].text and [part.learned for part in parts] == [False, True]


VARIANT = LoRA(dora=True, rslora=True, lora_plus=16)


def test_lora_variants_are_carried_to_each_tool(make_source, tmp_path):
    def found(tool, adapter):
        return values(export(make_source(adapter=adapter), tool, tmp_path / f"{tool}-{adapter.init}").folder)

    axolotl, factory = found("axolotl", VARIANT), found("llama-factory", VARIANT)
    assert (axolotl["peft_use_dora"], axolotl["peft_use_rslora"], axolotl["loraplus_lr_ratio"]) == (True, True, 16)
    assert (factory["use_dora"], factory["use_rslora"], factory["loraplus_lr_ratio"]) == (True, True, 16)
    axolotl, factory = found("axolotl", LoRA(init="pissa")), found("llama-factory", LoRA(init="pissa"))
    assert axolotl["peft_init_lora_weights"] == "pissa"
    assert (factory["pissa_init"], factory["pissa_iter"], factory["pissa_convert"]) == (True, -1, True)
    assert set(axolotl) <= KNOWN["axolotl"] and set(factory) <= KNOWN["llama-factory"]


def test_full_fine_tuning_is_carried_to_each_tool(make_source, tmp_path):
    axolotl = values(export(make_source(adapter=Full()), "axolotl", tmp_path / "a").folder)
    assert not {"adapter", "lora_r", "peft_use_dora"} & set(axolotl)
    factory = values(export(make_source(adapter=Full()), "llama-factory", tmp_path / "b").folder)
    assert factory["finetuning_type"] == "full"
    assert "lora_rank" not in factory


@pytest.mark.parametrize(
    ("tool", "adapter", "missing"),
    [
        ("axolotl", Prefix(), "Axolotl has no adapter prefix"),
        ("axolotl", LoRA(init="eva"), "Axolotl has no init eva of LoRA"),
        ("llama-factory", IA3(), "LLaMA-Factory has no adapter ia3"),
        ("llama-factory", LoRA(init="olora"), "LLaMA-Factory has no init olora of LoRA"),
        ("trl", PTuning(), "TRL's command line has no adapter p_tuning"),
        ("trl", LoRA(init="gaussian"), "TRL's command line has no init gaussian of LoRA"),
        ("trl", LoRA(lora_plus=16), "TRL's command line has no lora_plus"),
    ],
)
def test_what_a_tool_cannot_train_is_refused_with_what_to_use_instead(make_source, tmp_path, tool, adapter, missing):
    with pytest.raises(ExportError, match=f"{missing}, so it cannot train this winner again; .*--format adapter"):
        export(make_source(adapter=adapter), tool, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_ratio_of_one_is_plain_lora_to_every_tool(make_source, tmp_path):
    assert "use_dora" in values(export(make_source(adapter=LoRA(lora_plus=1)), "trl", tmp_path / "out").folder)
