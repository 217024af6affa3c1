"""One round of the playground: what was asked of whom, and the answers as they come; kept for the session."""

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

_REDRAW_S = 0.08
"""An answer is not drawn oftener than this while it comes."""

_ENDED = {
    "end": "it ended by itself",
    "stop": "a stop text came",
    "length": "it has the most tokens allowed",
    "cancelled": "it was stopped",
}


@dataclass
class Answer:
    """What one subject said, and what was thought of it."""

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
    """A question to several.

    Attributes:
        answers: In the order of the subjects.
        shown: Places of the answers in the order that they are shown in.
        blind: Whether the names are hidden until a thumb is given.
        due: The answer that is right, where the question is an example's.
    """

    turns: list[data.Turn]
    sampling: data.Sampling
    answers: list[Answer]
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
        """Whether the names are hidden still."""
        return self.blind and all(answer.thumb is None for answer in self.answers)

    def name(self, place: int) -> str:
        """Return what the answer at a place of the page is called."""
        return f"Answer {chr(ord('A') + place)}" if self.hidden else self.answers[self.shown[place]].label


def headings(asked: Round) -> list[Any]:
    """Draw a column an answer with its name, and return the columns."""
    columns = st.columns(len(asked.answers), border=True)
    for place, column in enumerate(columns):
        column.text(asked.name(place))
    return list(columns)


def stream(asked: Round) -> None:
    """Ask, and draw the answers while they come; leaving the page cancels them."""
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
                waits = f"{event.place} asked before; waiting" if event.place else "the worker is at it"
                status.caption(waits)
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


def _take(answer: Answer, event: data.Event) -> None:
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
        parts.append(f"then {event.tokens_per_s:.1f} a second")
    return ", ".join(parts) + f"; {_ENDED[event.ended or 'length']}"


def _draw(answer: Answer, place: tuple[Any, Any]) -> None:
    text, status = place
    text.code(home.clean(answer.refused or answer.text) or " ", language=None, wrap_lines=True)
    status.text(home.clean(answer.status))
