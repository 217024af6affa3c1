"""A row as training sees it, without torch: its tokens after templating, their losses, and the truncation.

The same as in TRL's trainers, from the tokenizer's files; the tests compare tokens and masks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from tokenizers import Encoding

from sweeper.config.technique import SFT, Technique, View
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError

Row = Mapping[str, Any]

_GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
"""The start of the assistant's turn in a chat template."""


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes:
        id: Its number.
        text: Its text; empty for all but the first token of a character.
        loss: Whether it carries a loss (of a reward model: whether the score is read there).
    """

    id: int
    text: str
    loss: bool = False


@dataclass(frozen=True)
class Passage:
    """One sequence of a row.

    Attributes:
        name: ``row``, ``chosen``, ``rejected`` or ``prompt``.
        tokens: All tokens, before truncation.
        prompt: Number of tokens before the answer.
        kept: Number of tokens within ``max_length``.
    """

    name: str
    tokens: tuple[Token, ...]
    prompt: int
    kept: int

    @property
    def loss_tokens(self) -> int:
        """Number of tokens with a loss before truncation."""
        return sum(token.loss for token in self.tokens)

    @property
    def lost_loss_tokens(self) -> int:
        """Number of tokens with a loss that are truncated."""
        return sum(token.loss for token in self.tokens[self.kept :])


@dataclass(frozen=True)
class TrainedRow:
    """A row as training sees it.

    Attributes:
        passages: One, or of a pair the chosen and the rejected one.
        dropped: Why training drops the row; None if it does not.
    """

    passages: tuple[Passage, ...]
    dropped: str | None = None

    @property
    def cut(self) -> bool:
        """Whether ``max_length`` truncates or drops the row."""
        return self.dropped is not None or any(each.kept < len(each.tokens) for each in self.passages)


def as_trained(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """Return a prepared row as a technique trains on it.

    Raises:
        DataError: If the chat template refuses it, is missing, or does not mark the turns that should be.
    """
    if _is_chat(row) and tokenizer.template_source is None:
        raise DataError("the rows are conversations, and the model has no chat template to write them with")
    return _VIEWS[technique.view](row, tokenizer, technique)


def _sft(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    assert isinstance(technique, SFT)
    last_turn = technique.completion_only and not technique.assistant_only
    if "messages" in row and last_turn:
        row = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    if "text" in row:
        found = _passage("row", _tokens(tokenizer, tokenizer.ended(row["text"])), 0)
    elif "messages" in row:
        found = _conversation(row["messages"], tokenizer, technique)
    else:
        found = _answered("row", row["prompt"], row["completion"], tokenizer)
        if not last_turn:
            found = _passage("row", found.tokens, found.prompt)
    found = _cut(found, technique.max_length)
    nothing = not technique.packing and found.loss_tokens == found.lost_loss_tokens
    return TrainedRow((found,), "nothing with a loss is left of it" if nothing else None)


def _conversation(messages: Sequence[Mapping[str, str]], tokenizer: ModelTokenizer, technique: SFT) -> Passage:
    """Return a whole conversation, with a loss on every token or on the assistant's turns."""
    if not technique.assistant_only:
        return _passage("row", _tokens(tokenizer, tokenizer.render(messages, ask=False), special=False), 0)
    text, spans = _marked(messages, tokenizer)
    encoding = tokenizer.encode(text, special=False)
    learned: set[int] = set()
    for start, end in spans:
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is None:
            break
        learned.update(range(first, last + 1 if last else len(encoding.ids)))
    tokens = _pieces(tokenizer, text, encoding)
    return _passage("row", tokens, min(learned, default=0), lambda place: place in learned)


def _marked(messages: Sequence[Mapping[str, str]], tokenizer: ModelTokenizer) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as text, and the spans that the template marks as the assistant's."""
    source = tokenizer.template_source or ""
    if not _GENERATION.search(source):
        raise DataError(
            "technique.assistant_only: the model's chat template does not mark the assistant's turns; TRL replaces it "
            "with its own template, whose mask is known only in training"
        )
    from transformers.utils.chat_template_utils import render_jinja_template  # no torch, but half a second

    texts, spans = render_jinja_template(
        [list(messages)], chat_template=source, return_assistant_tokens_mask=True, **tokenizer.special
    )
    return texts[0], spans[0]


def _pair(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """DPO: both answers after the prompt tokens that they share."""
    pair = [_answered(name, row["prompt"], row[name], tokenizer) for name in ("chosen", "rejected")]
    prompt = min(each.prompt for each in pair)
    return _ranked([_answer_from(each, prompt) for each in pair], technique)


def _labelled(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """KTO: one answer, labelled good or bad."""
    return _ranked([_answered("row", row["prompt"], row["completion"], tokenizer)], technique)


def _ranked(passages: Iterable[Passage], technique: Technique) -> TrainedRow:
    found = tuple(_cut(each, technique.max_length) for each in passages)
    full = any(each.prompt >= technique.max_length for each in found)
    return TrainedRow(found, "the prompt alone fills max_length" if full else None)


def _pair_without_reference(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """ORPO and CPO: TRL renders chats as text first and adds the special tokens itself."""
    prompt, answers = row["prompt"], [row["chosen"], row["rejected"]]
    if not isinstance(prompt, str):
        wholes = [tokenizer.render([*prompt, *answer], ask=False) for answer in answers]
        start = tokenizer.render(prompt, ask=True)
        for whole in wholes:
            start = start[: _common(start, whole)]
        prompt, answers = start, [whole[len(start) :] for whole in wholes]
    named = zip(("chosen", "rejected"), answers, strict=True)
    found = (_joined(name, prompt, answer, tokenizer) for name, answer in named)
    # Only answers are cut: a prompt that is longer than that stays whole, with no answer behind it.
    return TrainedRow(tuple(_cut(each, max(each.prompt, technique.max_length)) for each in found))


def _joined(name: str, prompt: str, answer: str, tokenizer: ModelTokenizer) -> Passage:
    tokens = _tokens(tokenizer, prompt + answer, special=False)
    alone = tokenizer.encode(prompt, special=False).ids
    length = len(alone) if alone == [token.id for token in tokens[: len(alone)]] else len(alone) - 1
    begin, end = tokenizer.token_id("bos_token"), tokenizer.token_id("eos_token")
    if begin is not None and (length == 0 or tokens[0].id != begin):
        tokens, length = [Token(begin, tokenizer.special["bos_token"]), *tokens], length + 1
    if end is not None and (len(tokens) == length or tokens[-1].id != end):
        tokens = [*tokens, Token(end, tokenizer.eos)]
    return _passage(name, tokens, length, lambda place: place >= length)


def _scored(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """A reward model: both answers, each scored at its last token; a pair with one that is too long is dropped."""
    found = []
    for name in ("chosen", "rejected"):
        each = _answered(name, row["prompt"], row[name], tokenizer)
        last = len(each.tokens) - 1
        found.append(_passage(name, each.tokens, each.prompt, lambda place, last=last: place == last))  # type: ignore[misc]
    long = any(len(each.tokens) > technique.max_length for each in found)
    return TrainedRow(tuple(found), "an answer is longer than max_length" if long else None)


def _prompt(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """GRPO and RLOO: the prompt alone, which the policy answers."""
    tokens = _prompt_tokens(row["prompt"], tokenizer)
    long = len(tokens) > technique.max_length
    found = _passage("prompt", tokens, len(tokens), lambda place: False)
    return TrainedRow((found,), "the prompt is longer than max_length" if long else None)


_VIEWS: dict[View, Callable[[Row, ModelTokenizer, Technique], TrainedRow]] = {
    "answer": _sft,
    "pair": _pair,
    "labelled": _labelled,
    "pair_as_text": _pair_without_reference,
    "scored": _scored,
    "prompt": _prompt,
}


def _answered(name: str, prompt: Any, answer: Any, tokenizer: ModelTokenizer) -> Passage:
    """Return a prompt and its answer; the answer begins where the tokens differ from those of the prompt alone."""
    if isinstance(prompt, str):
        tokens = _tokens(tokenizer, prompt + tokenizer.ended(answer))
    else:
        tokens = _tokens(tokenizer, tokenizer.render([*prompt, *answer], ask=False), special=False)
    alone = [token.id for token in _prompt_tokens(prompt, tokenizer)]
    start = _common(alone, [token.id for token in tokens])
    return _passage(name, tokens, start, lambda place: place >= start)


def _answer_from(passage: Passage, prompt: int) -> Passage:
    return _passage(passage.name, passage.tokens, prompt, lambda place: place >= prompt)


def _prompt_tokens(prompt: Any, tokenizer: ModelTokenizer) -> list[Token]:
    if isinstance(prompt, str):
        return _tokens(tokenizer, prompt)
    return _tokens(tokenizer, tokenizer.render(prompt, ask=True), special=False)


def _tokens(tokenizer: ModelTokenizer, text: str, *, special: bool = True) -> list[Token]:
    return _pieces(tokenizer, text, tokenizer.encode(text, special=special))


def _pieces(tokenizer: ModelTokenizer, text: str, encoding: Encoding) -> list[Token]:
    """Return tokens with their texts; some tokenizers leave spaces out of the offsets."""
    found, done = [], 0
    for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if start == end == 0:
            found.append(Token(number, tokenizer.tokenizer.id_to_token(number) or ""))
        else:
            found.append(Token(number, text[done:end]))
            done = max(done, end)
    return found


def _passage(
    name: str, tokens: Sequence[Token], prompt: int, loss: Callable[[int], bool] = lambda place: True
) -> Passage:
    marked = tuple(replace(token, loss=loss(place)) for place, token in enumerate(tokens))
    return Passage(name, marked, prompt, len(marked))


def _cut(passage: Passage, max_length: int) -> Passage:
    return replace(passage, kept=min(len(passage.tokens), max_length))


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of two sequences' common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _is_chat(row: Row) -> bool:
    return "messages" in row or isinstance(row.get("prompt"), list)
