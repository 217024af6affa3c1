"""Rows as text and tokens: one way for training, evaluation, checks and views; no torch.

A row of one answer becomes the tokens that TRL's ``SFTTrainer`` makes of it, and the answer begins where the tokens of
the prompt alone and of the whole row part. Of a conversation every turn of the assistant's is an answer. Unlike TRL, a
first token is never written twice, and where a chat template ends no turn the end-of-sequence token does.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

from tokenizers import Encoding

from sweeper.data.tokenizer import Message, ModelTokenizer
from sweeper.errors import DataError

Row = Mapping[str, Any]

_REASONING_ENDS = (
    "</think>",  # Qwen, DeepSeek, GLM, Nemotron
    "</thinking>",
    "</reasoning>",
    "[/THINK]",  # Mistral
    "<|END_THINKING|>",  # Cohere
    "<channel|>",  # Gemma 4
    "<|channel|>final<|message|>",  # gpt-oss
)
"""What chat templates write between the reasoning and the answer."""


@dataclass(frozen=True)
class Answer:
    """The token range of an answer: what a model writes after its prompt, the end of the turn included.

    Attributes:
        start: The first token.
        end: One after the last.
        learned: Whether training learns it; of a turn with weight 0 it does not.
    """

    start: int
    end: int
    learned: bool = True

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Rendering:
    """A row in text and tokens.

    Attributes:
        text: The whole row.
        encoding: Its tokens.
        answers: Its answers in order; of a prompt alone there is none. Evaluation asks for the last.
    """

    text: str
    encoding: Encoding
    answers: tuple[Answer, ...]

    @property
    def ids(self) -> list[int]:
        """The tokens of the whole row."""
        found: list[int] = self.encoding.ids
        return found

    @property
    def prompt(self) -> list[int]:
        """The tokens before the last answer."""
        return self.ids[: self.answers[-1].start] if self.answers else self.ids

    @property
    def answer(self) -> list[int]:
        """The tokens of the last answer."""
        return self.ids[self.answers[-1].start : self.answers[-1].end] if self.answers else []


@dataclass(frozen=True)
class _Draft:
    """A row as text, before its tokens are known; ``answers`` are character ranges, ``prompt`` is a text's prompt."""

    text: str
    answers: tuple[tuple[int, int, bool], ...] = ()
    prompt: str | None = None

    def ended(self, eos: str) -> _Draft:
        """Return the same with ``eos`` as the end of the last answer in a conversation."""
        if not self.answers or self.text.endswith(eos):
            return self
        *before, (start, _, learned) = self.answers
        text = self.text + eos
        return _Draft(text, (*before, (start, len(text), learned)))


def render(
    rows: Sequence[Row], tokenizer: ModelTokenizer, answer: str = "completion", *, end_turns: bool = True
) -> list[Rendering]:
    """Return prepared rows in tokens.

    Args:
        rows: Rows of one kind.
        tokenizer: The base model's.
        answer: The column of the answer; of a pair its side.
        end_turns: Whether the end-of-sequence token ends a conversation whose template does not.

    Raises:
        DataError: If the chat template refuses a row, or is missing; names the row, from 1.
    """
    drafts = [_numbered(row, number, tokenizer, answer) for number, row in enumerate(rows, 1)]
    if end_turns and tokenizer.end_of_turn is None:
        drafts = [draft.ended(tokenizer.eos) for draft in drafts]
    found: dict[int, Rendering] = {}
    for chat in (False, True):
        places = [place for place, row in enumerate(rows) if is_conversation(row) == chat]
        some = [drafts[place] for place in places]
        wholes = tokenizer.encode_batch(
            [draft.text for draft in some], special=not chat
        )  # a template writes them itself
        prompts = tokenizer.encode_batch([draft.prompt or "" for draft in some], special=not chat)
        for place, draft, whole, prompt in zip(places, some, wholes, prompts, strict=True):
            found[place] = Rendering(draft.text, whole, _answers(draft, whole, prompt))
    return [found[place] for place in range(len(rows))]


def lengths(rows: Sequence[Row], tokenizer: ModelTokenizer) -> list[int]:
    """Return the number of tokens of each row; of a pair, with the longer answer. Raises as ``render`` does."""
    if not rows:
        return []
    sides = ("chosen", "rejected") if "chosen" in rows[0] else ("completion",)
    counted = [[len(row.ids) for row in render(rows, tokenizer, side)] for side in sides]
    return [max(each) for each in zip(*counted, strict=True)]


def render_prompt(prompt: str | Sequence[Message], tokenizer: ModelTokenizer, tools: Any = None) -> list[int]:
    """Return the tokens of a prompt, up to the start of its answer; raises as ``render`` does."""
    if not isinstance(prompt, str):
        return list(tokenizer.encode(tokenizer.render(prompt, ask=True, tools=tools), special=False).ids)
    ids = list(tokenizer.encode(tokenizer.framed(prompt, end=False)).ids)
    return ids[:-1] if tokenizer.adds_eos else ids


def is_conversation(row: Row) -> bool:
    """Return whether a row is written by the chat template."""
    return "messages" in row or isinstance(row.get("prompt"), list)


def left_out(row: Row, text: str) -> list[str]:
    """Return what a conversation says and its rendered text does not: roles, ``reasoning`` and ``tools``."""
    if not is_conversation(row):
        return []
    turns = row.get("messages") or [*row.get("prompt", ()), *row.get("completion", ())]
    missing = [turn["role"] for turn in turns if not _is_in(_spoken(turn), text)]
    missing += ["reasoning" for turn in turns if not _is_in(turn.get("reasoning_content") or "", text)]
    names = [tool.get("function", tool).get("name", "") for tool in row.get("tools") or ()]
    return missing + ["tools"] * (not all(_is_in(name, text) for name in names))


def _is_in(said: str, text: str) -> bool:
    """Return whether a text says something, be it as JSON."""
    return said.strip() in text or json.dumps(said.strip(), ensure_ascii=False)[1:-1] in text


def answer_text(ids: Sequence[int], tokenizer: ModelTokenizer, *, reasoning: bool = False) -> str:
    """Return the text of an answer without special tokens and the white space at its ends.

    The reasoning before it is left out too, unless ``reasoning``.
    """
    text = tokenizer.decode(ids)
    if not reasoning:
        text = without_reasoning(text.removeprefix(tokenizer.lead))
    for token in {tokenizer.special_ids[number] for number in ids if number in tokenizer.special_ids}:
        text = text.replace(token, "")
    return text.strip()


def without_reasoning(text: str) -> str:
    """Return a text without all that stands before the end of its reasoning."""
    for end in _REASONING_ENDS:
        text = text.partition(end)[2] if end in text else text
    return text


def _numbered(row: Row, number: int, tokenizer: ModelTokenizer, answer: str) -> _Draft:
    try:
        return _draft(row, tokenizer, answer)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from error


def _draft(row: Row, tokenizer: ModelTokenizer, answer: str) -> _Draft:
    if "text" in row:
        text = tokenizer.framed(row["text"])
        return _Draft(text, prompt="")
    if "messages" in row:
        return _conversation(row["messages"], 0, tokenizer, row.get("tools"))
    prompt, completion = row["prompt"], row.get(answer)
    if not isinstance(prompt, str):
        if completion is None:
            return _Draft(tokenizer.render(prompt, ask=True, tools=row.get("tools")))
        return _conversation([*prompt, *completion], len(prompt), tokenizer, row.get("tools"))
    if completion is None:
        return _Draft(tokenizer.framed(prompt, end=False))
    return _Draft(tokenizer.framed(prompt + completion), prompt=tokenizer.framed(prompt, end=False))


def _conversation(messages: Sequence[Message], first: int, tokenizer: ModelTokenizer, tools: Any) -> _Draft:
    """Return a conversation whose answers are the assistant's turns from ``first`` on."""
    whole = tokenizer.render(messages, ask=False, tools=tools)
    answers = []
    for place in range(first, len(messages)):
        if messages[place]["role"] == "assistant":
            start, end = _turn(messages, place, whole, tokenizer, tools)
            answers.append((start, end, messages[place].get("weight") != 0))
    return _Draft(whole, tuple(answers))


def _turn(
    messages: Sequence[Message], place: int, whole: str, tokenizer: ModelTokenizer, tools: Any
) -> tuple[int, int]:
    """Return the characters of one turn: from where the prompt before it ends to the end of the turn.

    A template may write a turn otherwise where it is the last one (Qwen3 adds an empty think block, gpt-oss another
    end), so the turn is looked for as it is alone, then by what it says.
    """
    before = tokenizer.render(messages[:place], ask=True, tools=tools) if place else ""
    start = common_prefix(before, whole)
    if place == len(messages) - 1:
        return start, len(whole)
    alone = tokenizer.render(messages[: place + 1], ask=False, tools=tools)
    turn = alone[common_prefix(before, alone) :]
    if whole.startswith(turn, start):
        return start, start + len(turn)
    said = _spoken(messages[place])
    found = whole.find(said, start)
    if not said or found < 0:
        return start, start  # the template leaves the turn out
    end = found + len(said)
    tail = common_prefix(turn.partition(said)[2], whole[end:])
    closing = next((token for token in tokenizer.added.values() if whole.startswith(token, end)), "")
    return start, end + max(tail, len(closing))


def _spoken(message: Message) -> str:
    """Return what a rendered message must contain: its content, or the name of its first tool call."""
    content = without_reasoning(message.get("content") or "").strip()
    calls = message.get("tool_calls") or []
    return content or (str(calls[0]["function"]["name"]) if calls else "")


def _answers(draft: _Draft, whole: Encoding, prompt: Encoding) -> tuple[Answer, ...]:
    """Return a draft's answers in tokens."""
    if draft.prompt is not None:
        start = common_prefix(prompt.ids, whole.ids) if draft.prompt else 0
        return (Answer(start, len(whole.ids)),)
    ends = list(accumulate((end for _, end in whole.offsets), max))  # of each token the character after it
    return tuple(
        Answer(bisect_left(ends, start + 1), bisect_right(ends, end), learned) for start, end, learned in draft.answers
    )


def common_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of two sequences' common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
