"""Prompts in the shape that a version was trained on, and streaming generation of one answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from sweeper.data.formats import is_chat, kind_of
from sweeper.data.layouts import ALPACA
from sweeper.errors import DataError
from sweeper.evaluation.generation import (
    as_found,
    contiguous_head,
    generation_config,
    input_device,
    prompt_ids,
    prompt_room,
)
from sweeper.playground.protocol import Ended, Sampling, Turn

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""The decoded text of a character whose tokens are not all there yet."""

Shape = Literal["text", "alpaca", "chat"]

_ALPACA_HEAD = ALPACA.partition("{")[0]
_HEADS = (_ALPACA_HEAD, "Below is an instruction that describes a task, paired with an input")


class _TextStreamer(BaseStreamer):
    """Streams the text of tokens as they come, but for what may be the beginning of a stop text."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], on_text: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._on_text = on_text
        self._began = time.monotonic()
        self._prompt_came = False
        self._sent = 0
        self.ids: list[int] = []
        self.times: list[float] = []
        self.stopped = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next tokens; transformers first passes the prompt."""
        if not self._prompt_came:
            self._prompt_came = True
            return
        self.ids += value.flatten().tolist()
        self.times.append(time.monotonic() - self._began)
        self._send(last=False)

    def end(self) -> None:
        """Send the rest of the text."""
        if not self.stopped:
            self._send(last=True)

    def _send(self, *, last: bool) -> None:
        text = self._tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ends = [text.index(stop) for stop in self._stop if stop in text]
        if ends:
            text, self.stopped = text[: min(ends)], True
        elif not last:
            text = text[: len(text) - self._held_back(text)]
        if len(text) > self._sent:
            self._on_text(text[self._sent :])
            self._sent = len(text)

    def _held_back(self, text: str) -> int:
        unfinished = len(text) - len(text.rstrip(_UNFINISHED))
        begun = (size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return max(unfinished, max(begun, default=0))


class _Until(StoppingCriteria):
    """Stops generation as soon as a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, input_ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._condition(), device=input_ids.device, dtype=torch.bool)


def stream_answer(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    sampling: Sampling,
    on_text: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Answer a prompt, calling ``on_text`` with every piece, and return the fields of its ``answered`` event.

    The model is left unchanged.

    Raises:
        DataError: If the prompt has no token, does not fit the model's context, or is a conversation and the model has
            no chat template.
    """
    ids = prompt_ids(tokenizer, prompt)
    _require_fit(ids, prompt_room(model, sampling.max_new_tokens))
    streamer = _TextStreamer(tokenizer, sampling.stop, on_text)
    settings = generation_config(
        model, tokenizer, sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p
    )
    inputs = torch.tensor([ids], device=input_device(model))
    torch.manual_seed(sampling.seed)
    with as_found(model), contiguous_head(model), torch.no_grad():
        model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            generation_config=settings,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([_Until(lambda: streamer.stopped or cancelled())]),
        )
    return _summary(streamer, set(settings.eos_token_id or ()), cancelled())


def _require_fit(ids: Sequence[int], room: int | None) -> None:
    if not ids:
        raise DataError("the prompt has no token, so there is nothing to answer")
    if room is not None and len(ids) > room:
        raise DataError(
            f"the prompt has {len(ids):,} tokens, and the model takes {room:,} beside an answer of this length; "
            "shorten one of them"
        )


def _summary(streamer: _TextStreamer, ends: set[int], cancelled: bool) -> dict[str, Any]:
    times = streamer.times
    after = times[-1] - times[0] if len(times) > 1 else 0.0
    ended: Ended = "length"
    if streamer.stopped:
        ended = "stop"
    elif streamer.ids and streamer.ids[-1] in ends:
        ended = "end"
    elif cancelled:
        ended = "cancelled"
    return {
        "tokens": len(streamer.ids),
        "first_token_s": times[0] if times else None,
        "tokens_per_s": (len(times) - 1) / after if after > 0 else None,
        "ended": ended,
    }


def trained_shape(train: Path) -> Shape:
    """Return the shape of a version's training prompts, from the first row; DataError if that cannot be read."""
    try:
        with train.open(encoding="utf-8") as file:
            row = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise DataError(f"{train} is gone or damaged, so the shape of this version's prompts is unknown") from error
    if is_chat(kind_of(row)):
        return "chat"
    return "alpaca" if str(row.get("prompt", "")).startswith(_HEADS) else "text"


def shaped(turns: Sequence[Turn], shape: Shape) -> tuple[str | list[dict[str, Any]], str]:
    """Return a prompt in a shape, and a note about that, which may be empty."""
    if shape == "chat":
        return [turn.model_dump() for turn in turns], ""
    text = turns[-1].content
    note = "trained on plain text: it gets only the prompt, no earlier turns" if len(turns) > 1 else ""
    if shape == "alpaca" and not text.startswith(_HEADS):
        return ALPACA.format(
            instruction=text
        ), note or "the prompt is put into the instruction that it was trained with"
    return text, note
