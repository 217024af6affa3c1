"""A model folder's tokenizer and chat template, as transformers reads them, without torch."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from sweeper.errors import DataError, ModelError

Message = Mapping[str, str]
"""One turn of a conversation: ``role`` and ``content``."""

_LARGEST = 256 << 20  # bytes; the largest tokenizer in use is a tenth of that
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ModelTokenizer:
    """The tokenizer of a model folder.

    Attributes:
        tokenizer: Without truncation and padding.
        special: The special tokens that a template may name; empty text for a missing one.
        template_source: The chat template; None if the folder has none.
    """

    def __init__(self, model_folder: Path) -> None:
        """Load ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja`` of a model folder.

        Raises:
            ModelError: If the tokenizer is missing, or one of the files is broken.
        """
        self.tokenizer = _load_tokenizer(model_folder / "tokenizer.json")
        config = _load_config(model_folder / "tokenizer_config.json")
        self.special = {name: _token(config.get(name)) for name in _SPECIAL_TOKENS}
        self.template_source = _template_source(model_folder, config)
        self._template = None if self.template_source is None else _compile(self.template_source, model_folder)

    @property
    def eos(self) -> str:
        """The end-of-sequence token; empty if the model has none."""
        return self.special["eos_token"]

    def token_id(self, name: str) -> int | None:
        """Return the id of a special token by its role, such as ``bos_token``."""
        found: int | None = self.tokenizer.token_to_id(self.special[name]) if self.special[name] else None
        return found

    def encode(self, text: str, *, special: bool = True) -> Encoding:
        """Return a text in tokens, with the tokenizer's own special tokens if ``special``."""
        return self.tokenizer.encode(text, add_special_tokens=special)

    def special_tokens(self) -> list[str]:
        """Return the text of every special token."""
        return [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]

    def ended(self, text: str) -> str:
        """Return a text with the end-of-sequence token appended, as TRL does."""
        return text if text.endswith(self.eos) else text + self.eos

    def render(self, messages: Sequence[Message], *, ask: bool) -> str:
        """Return a conversation as text through the chat template; without a template, its contents joined.

        ``ask`` adds the generation prompt. Raises DataError if the template refuses the conversation.
        """
        if self._template is None:
            return "".join(message["content"] for message in messages)
        try:
            return str(self._template.render(messages=messages, add_generation_prompt=ask, **self.special))
        except Exception as error:  # a template is a program and may fail in any way
            raise DataError(f"the model's chat template refuses it: {error}") from error


class _Generation(Extension):
    """Lets ``{% generation %}`` blocks through; they mark the assistant's tokens for training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _load_tokenizer(path: Path) -> Tokenizer:
    text = _read(path)
    if text is None:
        raise ModelError(f"{path}: no such file; a model folder needs a fast tokenizer (tokenizer.json)")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: is not a usable tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load_config(path: Path) -> dict[str, Any]:
    text = _read(path)
    if text is None:
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return config


def _read(path: Path) -> str | None:
    """Return the text of a file; None if it is missing; ModelError if it is not UTF-8 text of a sensible size."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{path}: is not a regular file")
        if found.st_size > _LARGEST:
            raise ModelError(f"{path}: is too large to be what its name says")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _template_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the chat template, from its own file or the tokenizer's configuration; None if there is none."""
    source = _read(folder / "chat_template.jinja")
    if source is not None:
        return source
    source = config.get("chat_template")
    if isinstance(source, list):  # several named templates
        named = [entry for entry in source if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]
        if len(named) != len(source):
            raise ModelError(f"{folder / 'tokenizer_config.json'}: its chat templates must each have a name")
        source = {entry["name"]: entry.get("template") for entry in named}.get("default")
    if source is not None and not isinstance(source, str):
        raise ModelError(f"{folder / 'tokenizer_config.json'}: its chat template must be text")
    return source


def _compile(source: str, folder: Path) -> Any:
    """Compile a chat template in jinja2's sandbox."""
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
    """Return a special token, given as text or as an object with ``content``; empty for none."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""
