"""Token counts without torch: the tokenizer file and the chat template of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from sweeper.data.formats import is_chat, kind_of
from sweeper.errors import DataError, ModelError

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class TokenCounter:
    """Counts the tokens of converted rows as TRL's ``SFTTrainer`` does before it cuts them.

    Texts get the special tokens that the tokenizer adds and the end-of-sequence token that TRL appends; chats go
    through the model's chat template, or are joined where there is none.
    """

    def __init__(self, model_folder: Path) -> None:
        """Load ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja`` of a model folder.

        Raises:
            ModelError: If the tokenizer is missing, or one of the files is broken.
        """
        self._tokenizer = _load_tokenizer(model_folder / "tokenizer.json")
        config = _load_config(model_folder / "tokenizer_config.json")
        self._special = {name: _token(config.get(name)) for name in _SPECIAL_TOKENS}
        self._template = _load_template(model_folder, config)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model folder has a chat template."""
        return self._template is not None

    def lengths(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the tokens of each row, prompt and completion together; of a pair, with the longer answer.

        Raises:
            DataError: If the chat template refuses a row; names the row, from 1.
        """
        texts = [self._whole(row, number) for number, row in enumerate(rows, 1)]
        return self._count(texts, rows)

    def prompt_lengths(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the tokens of each row's prompt alone; 0 for rows without one.

        A row whose prompt fills the training length has no completion left to learn from.
        """
        texts = [self._prompt(row, number) for number, row in enumerate(rows, 1)]
        counts = self._count(texts, rows)
        return [count if text else 0 for count, text in zip(counts, texts, strict=True)]

    def special_tokens_in(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the indices of rows whose own text holds a special token of the tokenizer, such as ``<|im_end|>``."""
        special = [token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special]
        return [i for i, row in enumerate(rows) if any(token in text for text in _texts(row) for token in special)]

    def _count(self, texts: list[str], rows: Sequence[Mapping[str, Any]]) -> list[int]:
        # A chat template writes the special tokens itself, so they are not added a second time.
        chat = bool(rows) and is_chat(kind_of(rows[0])) and self.has_chat_template
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=not chat)]

    def _whole(self, row: Mapping[str, Any], number: int) -> str:
        if "text" in row:
            return self._ended(row["text"])
        if "messages" in row:
            return self._render(row["messages"], number, ask=False)
        answers = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
        if not answers:
            return self._prompt(row, number)
        if isinstance(row["prompt"], str):
            return str(row["prompt"]) + self._ended(max(answers, key=len))
        longest = max(answers, key=lambda turns: sum(len(turn["content"]) for turn in turns))
        return self._render([*row["prompt"], *longest], number, ask=False)

    def _prompt(self, row: Mapping[str, Any], number: int) -> str:
        prompt: str | list[dict[str, str]] = row.get("prompt", "")
        return prompt if isinstance(prompt, str) else self._render(prompt, number, ask=True)

    def _ended(self, text: str) -> str:
        eos = self._special["eos_token"]
        return text if text.endswith(eos) else text + eos

    def _render(self, messages: Sequence[Mapping[str, str]], number: int, ask: bool) -> str:
        if self._template is None:
            return "".join(message["content"] for message in messages)
        try:
            return str(self._template.render(messages=messages, add_generation_prompt=ask, **self._special))
        except Exception as error:  # a template is a program and may fail in any way
            raise DataError(f"row {number}: the model's chat template refuses it: {error}") from error


class _Generation(Extension):
    """Lets ``{% generation %}`` blocks through; they mark the assistant's tokens for training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's body as it stands."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _load_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a model folder needs a fast tokenizer (tokenizer.json)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: is not a usable tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return config


def _load_template(folder: Path, config: Mapping[str, Any]) -> Any:
    """Compile the chat template, from its own file or the tokenizer's configuration, in jinja2's sandbox."""
    path = folder / "chat_template.jinja"
    source = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several named templates
        source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
    if not isinstance(source, str):
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ModelError(f"{folder}: its chat template is not valid: {error}") from error


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own filter escapes HTML, which chat templates do not want."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _token(value: Any) -> str:
    """Return a special token, written as text or as an object with ``content``; empty where there is none."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _texts(row: Mapping[str, Any]) -> list[str]:
    found = []
    for value in row.values():
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            found += [message["content"] for message in value]
    return found
