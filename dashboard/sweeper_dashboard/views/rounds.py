"""One round of the playground, kept for the session: a prompt, and the answers as they stream in."""

from __future__ import annotations

import random
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from sweeper_dashboard.data import home
from sweeper_dashboard.data import playground as data
from sweeper_dashboard.views import parts

_REDRAW_S = 0.08
"""Shortest time between two redraws of a streaming answer."""

_ENDED = {
    "end": "finished",
    "stop": "hit a stop sequence",
    "length": "hit the token limit",
    "cancelled": "cancelled",
}


@dataclass
class ShownAnswer:
    """One version's answer, and the user's rating of it."""

    reference: str
    label: str
    text: str = ""
    status: str = "waiting"
    note: str = ""
    seen: str | list[dict[str, Any]] | None = None
    finished: bool = False
    refused: str = ""
    thumb: bool | None = None
    corrected: bool = False


@dataclass
class Round:
    """A prompt to several versions.

    Attributes:
        answers: In the order of the subjects.
        shown: Indices of the answers in the order shown.
        blind: Whether the names are hidden until an answer is rated.
        due: The reference answer, if the prompt is an example's.
    """

    turns: list[data.Turn]
    sampling: data.Sampling
    answers: list[ShownAnswer]
    blind: bool = False
    due: str = ""
    failed: str = ""
    shown: list[int] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.shown = list(range(len(self.answers)))
        if self.blind:
            random.shuffle(self.shown)

    @property
    def hidden(self) -> bool:
        """Whether the names are still hidden."""
        return self.blind and all(answer.thumb is None for answer in self.answers)

    def name(self, place: int) -> str:
        """Return the heading of the answer at a position of the page."""
        return f"Answer {chr(ord('A') + place)}" if self.hidden else self.answers[self.shown[place]].label


def headings(asked: Round) -> list[Any]:
    """Draw a column with a heading for each answer, and return the columns."""
    columns = st.columns(len(asked.answers), border=True)
    for place, column in enumerate(columns):
        column.text(asked.name(place))
    return list(columns)


def stream(asked: Round) -> None:
    """Send the prompt and draw the answers as they stream in; leaving the page cancels them."""
    columns = headings(asked)
    places = {of: (columns[at].empty(), columns[at].empty()) for at, of in enumerate(asked.shown)}
    for of in places:
        _draw(asked.answers[of], places[of])
    status = st.empty()
    drawn = 0.0
    request = data.ask([answer.reference for answer in asked.answers], asked.turns, asked.sampling)
    with closing(request.events()) as events:
        for event in events:
            if event.kind == "queued":
                status.caption(f"{event.place} requests ahead in the queue" if event.place else "running")
                continue
            if event.subject is None:
                asked.failed = event.text
                continue
            answer = asked.answers[event.subject]
            _take(answer, event)
            if event.kind != "piece" or time.monotonic() - drawn > _REDRAW_S:
                _draw(answer, places[event.subject])
                drawn = time.monotonic()
    for answer in asked.answers:
        answer.finished = True


def _take(answer: ShownAnswer, event: data.Event) -> None:
    match event.kind:
        case "loading":
            answer.status = event.text
        case "started":
            answer.status, answer.seen, answer.note = f"answering on {event.device}", event.seen, event.text
        case "piece":
            answer.text += event.text
        case "refused":
            answer.status, answer.refused = "cannot answer", event.text
        case "answered":
            answer.finished = True
            answer.status = _speed(event)


def _speed(event: data.Event) -> str:
    parts = [f"{event.tokens:,} tokens"]
    if event.first_token_s is not None:
        parts.append(f"first after {event.first_token_s:.2f} s")
    if event.tokens_per_s is not None:
        parts.append(f"then {event.tokens_per_s:.1f} tokens/s")
    return ", ".join(parts) + f"; {_ENDED[event.ended or 'length']}"


def _draw(answer: ShownAnswer, place: tuple[Any, Any]) -> None:
    text, status = place
    with text:
        parts.command(home.clean(answer.refused or answer.text))
    status.text(home.clean(answer.status))
