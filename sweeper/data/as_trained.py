"""A row as training sees it, without torch: its tokens after templating, their losses, and the truncation.

SFT trains on the tokens that ``rendering`` makes. TRL's other trainers make their own; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sweeper.config.technique import SFT, Technique, View
from sweeper.data.rendering import Rendering, Row, common_prefix, render
from sweeper.data.tokenizer import ModelTokenizer


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
        DataError: If the chat template refuses it, or is missing.
    """
    return _VIEWS[technique.view](row, tokenizer, technique)


def learned(row: Rendering, technique: SFT, *, completions: bool) -> list[bool]:
    """Return for every token of a row whether SFT takes a loss on it; ``completions`` is false for plain text."""
    if not technique.completion_only or not completions:
        return [True] * len(row.ids)
    answers = row.answers if technique.turns == "all" else row.answers[-1:]
    losses = [False] * len(row.ids)
    for answer in answers:
        losses[answer.start : answer.end] = [answer.learned] * len(answer)
    return losses


def _sft(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    assert isinstance(technique, SFT)
    (rendered,) = render([row], tokenizer)
    losses = learned(rendered, technique, completions="text" not in row)
    prompt = rendered.answers[-1].start
    found = _cut(_passage("row", _pieces(tokenizer, rendered), prompt, losses.__getitem__), technique.max_length)
    nothing = not technique.packing and found.loss_tokens == found.lost_loss_tokens
    return TrainedRow((found,), "nothing with a loss is left of it" if nothing else None)


def _pair(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """DPO: both answers after the prompt tokens that they share."""
    pair = [_answered(name, row, tokenizer) for name in ("chosen", "rejected")]
    prompt = min(each.prompt for each in pair)
    return _ranked([_answer_from(each, prompt) for each in pair], technique)


def _labelled(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """KTO: one answer, labelled good or bad."""
    return _ranked([replace(_answered("completion", row, tokenizer), name="row")], technique)


def _ranked(passages: Iterable[Passage], technique: Technique) -> TrainedRow:
    found = tuple(_cut(each, technique.max_length) for each in passages)
    full = any(each.prompt >= technique.max_length for each in found)
    return TrainedRow(found, "the prompt alone fills max_length" if full else None)


def _pair_without_reference(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """ORPO and CPO: TRL renders chats as text first and adds the special tokens itself."""
    prompt, answers = row["prompt"], [row["chosen"], row["rejected"]]
    if not isinstance(prompt, str):
        wholes = [tokenizer.render([*prompt, *answer], ask=False, tools=row.get("tools")) for answer in answers]
        start = tokenizer.render(prompt, ask=True, tools=row.get("tools"))
        for whole in wholes:
            start = start[: common_prefix(start, whole)]
        prompt, answers = start, [whole[len(start) :] for whole in wholes]
    named = zip(("chosen", "rejected"), answers, strict=True)
    found = (_joined(name, prompt, answer, tokenizer) for name, answer in named)
    # Only answers are cut: a prompt that is longer than that stays whole, with no answer behind it.
    return TrainedRow(tuple(_cut(each, max(each.prompt, technique.max_length)) for each in found))


def _joined(name: str, prompt: str, answer: str, tokenizer: ModelTokenizer) -> Passage:
    text = prompt + answer
    tokens = _pieces(tokenizer, Rendering(text, tokenizer.encode(text, special=False), ()))
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
        each = _answered(name, row, tokenizer)
        last = len(each.tokens) - 1
        found.append(_passage(name, each.tokens, each.prompt, lambda place, last=last: place == last))  # type: ignore[misc]
    long = any(len(each.tokens) > technique.max_length for each in found)
    return TrainedRow(tuple(found), "an answer is longer than max_length" if long else None)


def _prompt(row: Row, tokenizer: ModelTokenizer, technique: Technique) -> TrainedRow:
    """GRPO and RLOO: the prompt alone, which the policy answers."""
    tokens = _pieces(tokenizer, render([{"prompt": row["prompt"]}], tokenizer)[0])
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


def _answered(name: str, row: Row, tokenizer: ModelTokenizer) -> Passage:
    """Return a prompt and one of its answers, which begins where the tokens part from those of the prompt alone."""
    (rendered,) = render([row], tokenizer, name, end_turns=False)
    start = rendered.answers[0].start if rendered.answers else 0
    return _passage(name, _pieces(tokenizer, rendered), start, lambda place: place >= start)


def _answer_from(passage: Passage, prompt: int) -> Passage:
    return _passage(passage.name, passage.tokens, prompt, lambda place: place >= prompt)


def _pieces(tokenizer: ModelTokenizer, row: Rendering) -> list[Token]:
    """Return tokens with their texts; some tokenizers leave spaces out of the offsets."""
    found, done = [], 0
    for number, (start, end) in zip(row.ids, row.encoding.offsets, strict=True):
        if start == end == 0:
            found.append(Token(number, tokenizer.decode([number])))
        else:
            found.append(Token(number, row.text[done:end]))
            done = max(done, end)
    return found


def _passage(
    name: str, tokens: Sequence[Token], prompt: int, loss: Callable[[int], bool] = lambda place: True
) -> Passage:
    marked = tuple(replace(token, loss=loss(place)) for place, token in enumerate(tokens))
    return Passage(name, marked, prompt, len(marked))


def _cut(passage: Passage, max_length: int) -> Passage:
    return replace(passage, kept=min(len(passage.tokens), max_length))
