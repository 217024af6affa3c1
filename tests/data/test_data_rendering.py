"""Rows as text and tokens: the same as transformers', without transformers; every answer found in any template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sweeper.data.read import read_rows
from sweeper.data.rendering import lengths, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError, ModelError

ITN = Path(__file__).parents[2] / "studies" / "data" / "itn"
CHATML = """\
{%- if messages[0]['role'] == 'system' and 'forbidden' in messages[0]['content'] %}
    {{- raise_exception('No such system message') }}
{%- endif %}
{% for message in messages %}
    {%- if message['role'] == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}

    {%- else %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>

    {%- endif %}
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""
CHAT = [
    {"role": "system", "content": "Be <b>brief</b>."},
    {"role": "user", "content": "three hundred and twelve"},
    {"role": "assistant", "content": "312"},
]


@pytest.fixture(scope="module")
def itn() -> list[dict[str, Any]]:
    return read_rows("train.jsonl", ITN)


@pytest.fixture
def model_folder(tmp_path: Path, itn: list[dict[str, Any]]) -> Path:
    """A byte-level BPE tokenizer that adds <s>, cuts at 8 and pads, with a chat template in its configuration."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["prompt"] + row["completion"] for row in itn[:200]], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "chat_template": CHATML,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_counts_equal_those_of_transformers(model_folder: Path, itn: list[dict[str, Any]]) -> None:
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(model_folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", chat_template=CHATML
    )
    tokenizer, rows = ModelTokenizer.load(model_folder), itn[:50]

    def prompt_lengths(rows):
        return [len(tokenizer.encode(row["prompt"]).ids) for row in rows]

    joined = [row["prompt"] + row["completion"] + "</s>" for row in rows]
    assert lengths(rows, tokenizer) == [len(reference(text)["input_ids"]) for text in joined]
    assert prompt_lengths(rows) == [len(reference(row["prompt"])["input_ids"]) for row in rows]
    texts = [{"text": text} for text in joined]
    assert lengths(texts, tokenizer) == lengths(rows, tokenizer)
    assert [row.prompt for row in render(texts, tokenizer)] == [[]] * len(texts)

    whole = len(reference.apply_chat_template(CHAT)["input_ids"])
    asked = len(reference.apply_chat_template(CHAT[:2], add_generation_prompt=True)["input_ids"])
    assert lengths([{"messages": CHAT}], tokenizer) == [whole]
    conversational = [{"prompt": CHAT[:2], "completion": CHAT[2:]}]
    assert lengths(conversational, tokenizer) == [whole]
    assert [len(row.prompt) for row in render(conversational, tokenizer)] == [asked]
    assert max(lengths(rows, tokenizer)) > 8 > min(lengths(rows, tokenizer))


def test_the_template_file_comes_first(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").write_text("{{ messages | tojson }}{{ eos_token }}", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    expected = len(tokenizer.encode(json.dumps(CHAT) + "</s>", add_special_tokens=False).ids)
    assert lengths([{"messages": CHAT}], ModelTokenizer.load(model_folder)) == [expected]


def test_named_templates_and_none_at_all(model_folder: Path) -> None:
    path = model_folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    whole = lengths([{"messages": CHAT}], ModelTokenizer.load(model_folder))
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    path.write_text(json.dumps({**config, "chat_template": named}), encoding="utf-8")
    assert lengths([{"messages": CHAT}], ModelTokenizer.load(model_folder)) == whole
    path.unlink()
    tokenizer = ModelTokenizer.load(model_folder)
    assert tokenizer.template_source is None
    with pytest.raises(DataError, match=r"row 1: .* no chat template"):
        lengths([{"messages": CHAT}], tokenizer)


def test_a_row_that_the_template_refuses_is_named(model_folder: Path) -> None:
    refused = {"messages": [{"role": "system", "content": "forbidden"}, *CHAT[1:]]}
    with pytest.raises(DataError, match=r"row 2: the model's chat template refuses it: No such system message"):
        lengths([{"messages": CHAT}, refused], ModelTokenizer.load(model_folder))


def test_templates_run_in_a_sandbox(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8"
    )
    with pytest.raises(DataError, match="unsafe"):
        lengths([{"messages": CHAT}], ModelTokenizer.load(model_folder))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", None, r"tokenizer.json: no such file; a model folder needs a fast tokenizer"),
        ("tokenizer.json", "{}", r"tokenizer.json: is not a usable tokenizer"),
        ("tokenizer_config.json", "{", r"tokenizer_config.json: is not valid JSON"),
        ("tokenizer_config.json", "[]", r"tokenizer_config.json: must hold a JSON object"),
        ("chat_template.jinja", "{% if %}", r"its chat template is not valid"),
    ],
)
def test_broken_model_folders(model_folder: Path, name: str, content: str | None, told: str) -> None:
    if content is None:
        (model_folder / name).unlink()
    else:
        (model_folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=told):
        ModelTokenizer.load(model_folder)
