"""A base model, data and studies small enough to train in a second, made from nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.config.adapter import LoRA, QLoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import Decision, TrialSpec

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def row(shape: str, number: int) -> dict[str, Any]:
    """A number in words and in digits, in the shape asked for."""
    words, digits = " ".join(WORDS[int(digit)] for digit in str(number)), str(number)
    wrong = str(number + 1)
    user, answer = {"role": "user", "content": f"write {words}"}, {"role": "assistant", "content": digits}
    return {
        "prompt_completion": {"prompt": f"write {words}: ", "completion": digits},
        "prompt_completion_chat": {"prompt": [user], "completion": [answer]},
        "messages": {"messages": [user, answer]},
        "text": {"text": f"write {words}: {digits}"},
        "preference": {"prompt": f"write {words}: ", "chosen": digits, "rejected": wrong},
        "preference_chat": {
            "prompt": [user],
            "chosen": [answer],
            "rejected": [{"role": "assistant", "content": wrong}],
        },
        "unpaired": {
            "prompt": f"write {words}: ",
            "completion": digits if number % 2 else wrong,
            "label": bool(number % 2),
        },
        "prompt": {"prompt": f"write {words}: ", "reference": digits},
        # Every preferred answer is the same token, every other one another.
        "same_preference": {"prompt": f"write {words}:", "chosen": " one", "rejected": " two"},
        # Every answer is the same token, which even an untrained model of two layers learns in a few steps.
        "same_answer": {"prompt": f"write {words}:", "completion": " one"},
    }[shape]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build_tokenizer() -> Any:
    """A byte-level BPE tokenizer of some 400 tokens, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    corpus = [json.dumps(row("text", number)) for number in range(200)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


FAMILIES = ("llama", "qwen3", "gemma3", "gpt2")


def build_model(folder: Path, family: str = "llama", **more: Any) -> Path:
    """A model of two layers, untrained; every linear layer is a multiple of 64 wide, for NF4.

    Between them, the families have rotary and learned positions, grouped and full attention, sliding windows,
    normalised queries, biases, gated and plain MLPs, and linear layers stored the other way round.
    """
    import torch
    import transformers

    fast = build_tokenizer()
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    common = {
        "vocab_size": len(fast),
        "bos_token_id": fast.bos_token_id,
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
        "initializer_range": 0.2,
    }
    modern = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    match family:
        case "llama":
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**common, **modern, **more}))
        case "qwen3":
            config = transformers.Qwen3Config(**common, **modern, head_dim=16, attention_bias=True, **more)
            model = transformers.Qwen3ForCausalLM(config)
        case "gemma3":
            config = transformers.Gemma3TextConfig(**common, **modern, head_dim=16, sliding_window=8, **more)
            model = transformers.Gemma3ForCausalLM(config)
        case "gpt2":
            sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
            drops = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, **more}
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**common, **sizes, **drops))
    model.save_pretrained(folder)
    return folder


def trial_spec(
    model: Path,
    folder: Path,
    *,
    number: int = 0,
    seed: int = 1234,
    shape: str = "prompt_completion",
    adapter: LoRA | QLoRA | None = None,
    technique: SFT | None = None,
    rows: int = 22,
    **evaluation_or_hyperparameters: Any,
) -> TrialSpec:
    """A trial on rows of one shape; further arguments are fields of its evaluation or hyperparameters."""
    given = evaluation_or_hyperparameters
    evaluation = {name: given.pop(name) for name in EvaluationConfig.model_fields if name in given}
    values = {"learning_rate": 5e-3, "batch_size": 8, "epochs": 2.0, "lora_rank": 4, "lora_alpha": 8.0, **given}
    return TrialSpec(
        study="tiny",
        number=number,
        seed=seed,
        model=ModelConfig(name="tiny"),
        model_folder=model,
        technique=technique or SFT(max_length=64),
        adapter=adapter or LoRA(),
        train=write_rows(folder / "data" / f"{shape}-train.jsonl", (row(shape, 100 + n) for n in range(rows))),
        validation=write_rows(folder / "data" / f"{shape}-validation.jsonl", (row(shape, 500 + n) for n in range(6))),
        hyperparameters=Hyperparameters(**values),
        evaluation=EvaluationConfig(**{"points": 3, "metrics": ("exact_match",), "max_new_tokens": 6, **evaluation}),
        device="cpu",
        folder=folder / "trials" / f"{number:05d}",
    )


class Curve:
    """A ``report`` that keeps all it is told, and answers ``decision`` from step ``at`` on."""

    def __init__(self, decision: Decision = Decision.CONTINUE, at: int = 1) -> None:
        self.decision = decision
        self.at = at
        self.steps: dict[int, dict[str, float]] = {}
        self.evaluations: dict[int, dict[str, float]] = {}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> Decision:
        (self.steps if "loss" in metrics else self.evaluations)[step] = dict(metrics)
        return self.decision if step >= self.at else Decision.CONTINUE

    def of(self, name: str) -> list[float]:
        """The values of one metric in order of steps."""
        found = self.steps if name in ("loss", "grad_norm", "learning_rate") else self.evaluations
        return [found[step][name] for step in sorted(found)]
