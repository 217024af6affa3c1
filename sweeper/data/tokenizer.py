"""A model folder's tokenizer and chat template, as transformers reads them, without torch."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from sweeper.errors import DataError, ModelError

Message = Mapping[str, Any]
"""One turn of a conversation: ``role`` and ``content``, perhaps ``tool_calls`` and others that templates know."""

_LARGEST = 256 << 20  # bytes; the largest tokenizer in use is a tenth of that
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_PROBE = "answer probe"


class ModelTokenizer:
    """A base model's tokenizer and chat template.

    Attributes:
        special: The special tokens that a template may name; empty text for a missing one.
        template_source: The chat template; None if the model has none.
    """

    def __init__(
        self, tokenizer: Tokenizer, special: Mapping[str, str], template_source: str | None, place: str
    ) -> None:
        """Compile the chat template; ModelError, with ``place``, if it is not valid."""
        self._tokenizer = tokenizer
        self.special = {name: special.get(name) or "" for name in _SPECIAL_TOKENS}
        self.template_source = template_source
        self._template = None if template_source is None else _compile(template_source, place)

    @classmethod
    def load(cls, folder: Path) -> ModelTokenizer:
        """Load the tokenizer of a model folder, as transformers would.

        Raises:
            ModelError: If the tokenizer is missing, or one of its files is broken.
        """
        tokenizer = _load_tokenizer(folder / "tokenizer.json")
        config = _load_json(folder / "tokenizer_config.json")
        special = {name: _token(config.get(name)) for name in _SPECIAL_TOKENS}
        if not any(special.values()):  # GPT-2's own files name none: they are the defaults of its class
            ids = _load_json(folder / "config.json")
            special = {name: _token_of(tokenizer, ids.get(f"{name}_id")) for name in _SPECIAL_TOKENS}
        return cls(tokenizer, special, _template_source(folder, config), str(folder))

    @classmethod
    def of(cls, loaded: Any) -> ModelTokenizer:
        """Return the same for a tokenizer that transformers has loaded."""
        special = {name: str(getattr(loaded, name) or "") for name in _SPECIAL_TOKENS}
        template = loaded.get_chat_template() if loaded.chat_template else None
        return cls(loaded.backend_tokenizer, special, template, loaded.name_or_path)

    @property
    def eos(self) -> str:
        """The end-of-sequence token; empty if the model has none."""
        return self.special["eos_token"]

    @cached_property
    def size(self) -> int:
        """One more than the largest token id."""
        return max(self._tokenizer.get_vocab().values(), default=-1) + 1

    @cached_property
    def added(self) -> Mapping[int, str]:
        """The text of every added token by its id; no merge crosses one."""
        return {number: token.content for number, token in self._tokenizer.get_added_tokens_decoder().items()}

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends the assistant's turn in the chat template; None if nothing does."""
        tail = self._around_answer[1]
        return next((number for number in self.encode(tail, special=False).ids if number in self.added), None)

    @property
    def lead(self) -> str:
        """What the chat template writes between the generation prompt and an answer, such as an empty think block."""
        return self._around_answer[0]

    @cached_property
    def _around_answer(self) -> tuple[str, str]:
        asked = [{"role": "user", "content": "a"}]
        try:
            prompt = self.render(asked, ask=True)
            whole = self.render([*asked, {"role": "assistant", "content": _PROBE}], ask=False)
        except DataError:  # no template, or one for other conversations
            return "", ""
        before, _, after = whole.rpartition(_PROBE)
        return before.removeprefix(prompt) if before.startswith(prompt) else "", after

    @cached_property
    def _around(self) -> tuple[str, bool]:
        """The token that the tokenizer puts before a text by itself, and whether it ends one with ``eos``."""
        plain, whole = (self.encode("a", special=special).ids for special in (False, True))
        first = "" if whole[:1] == plain[:1] else str(self._tokenizer.id_to_token(whole[0]))
        return first, whole[-1:] != plain[-1:] and self._tokenizer.id_to_token(whole[-1]) == self.eos

    @property
    def first(self) -> str:
        """The token that the tokenizer puts before every text by itself; empty for none."""
        return self._around[0]

    @property
    def adds_eos(self) -> bool:
        """Whether the tokenizer ends every text with ``eos`` by itself."""
        return self._around[1]

    @cached_property
    def special_ids(self) -> Mapping[int, str]:
        """The text of every special token by its id."""
        tokens = self._tokenizer.get_added_tokens_decoder()
        return {number: token.content for number, token in tokens.items() if token.special}

    def token_id(self, name: str) -> int | None:
        """Return the id of a special token by its role, such as ``bos_token``."""
        found: int | None = self._tokenizer.token_to_id(self.special[name]) if self.special[name] else None
        return found

    def begins_twice(self, text: str) -> bool:
        """Return whether a text begins with the token that the tokenizer puts before every text."""
        return bool(self.first) and text.startswith(self.first)

    def encode(self, text: str, *, special: bool = True) -> Encoding:
        """Return a text in tokens, with the tokenizer's own special tokens if ``special``."""
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
        """Return texts in tokens; see ``encode``."""
        self._tokenizer.no_truncation()  # transformers sets both anew at every call of its own
        self._tokenizer.no_padding()
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=special)

    def decode(self, ids: Sequence[int]) -> str:
        """Return tokens as text, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def framed(self, text: str, *, end: bool = True) -> str:
        """Return a text that begins and ends once: without a first token that the tokenizer adds, with ``eos``."""
        first, ends = self._around
        text = text.removeprefix(first) if first else text
        if not end:
            return text
        return text.removesuffix(self.eos) if ends else text if text.endswith(self.eos) else text + self.eos

    def render(self, messages: Sequence[Message], *, ask: bool, tools: Sequence[Any] | None = None) -> str:
        """Return a conversation as text through the chat template; ``ask`` adds the generation prompt.

        Raises:
            DataError: If there is no template, or it refuses the conversation.
        """
        if self._template is None:
            raise DataError(
                "the rows are conversations, and the model has no chat template to write them with; use an "
                "instruction-tuned model, or give the data as prompt and completion text"
            )
        turns = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        if self._takes_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn.get("content") or ""}]} for turn in turns]
        return self._write(turns, ask, tools)

    def _write(self, turns: Sequence[Message], ask: bool, tools: Sequence[Any] | None = None) -> str:
        assert self._template is not None
        try:
            return str(
                self._template.render(messages=turns, tools=tools or None, add_generation_prompt=ask, **self.special)
            )
        except Exception as error:  # a template is a program and may fail in any way
            raise DataError(f"the model's chat template refuses it: {error}") from error

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template writes contents that are lists of parts and leaves out texts, as of vision models."""
        try:
            return _PROBE not in self._write([{"role": "user", "content": _PROBE}], True) and _PROBE in self._write(
                [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}], True
            )
        except DataError:
            return False


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
    return tokenizer


def _load_json(path: Path) -> dict[str, Any]:
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


def _compile(source: str, place: str) -> Any:
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
        raise ModelError(f"{place}: its chat template is not valid: {error}") from error


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own filter escapes HTML, which chat templates do not want."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _token_of(tokenizer: Tokenizer, number: Any) -> str:
    """Return the token of an id in ``config.json``, or of the first of several; empty for none."""
    number = number[0] if isinstance(number, list) and number else number
    return tokenizer.id_to_token(number) or "" if isinstance(number, int) and number >= 0 else ""


def _token(value: Any) -> str:
    """Return a special token, given as text or as an object with ``content``; empty for none."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""
