"""What passes between whoever asks and the worker: one JSON object a line, requests one way and events the other."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from sweeper.config.base import Frozen
from sweeper.config.study import Name
from sweeper.data.layouts import text as checked_text
from sweeper.errors import RegistryError

MOST_VERSIONS = 4
"""Versions that are asked at once: more cannot be read side by side. A bare base model may stand beside them."""

IDLE_S = 600.0
"""After this long without a request the worker ends."""

_REFERENCE = re.compile(r"(?P<bare>base:)?(?P<adapter>[^@:]+)@(?P<version>[1-9]\d{0,8})")


class Subject(Frozen):
    """Who is asked: a registered version, or (``bare``) the base model that it stands on, loaded in the same way."""

    adapter: Name
    version: int = Field(ge=1)
    bare: bool = False

    @property
    def reference(self) -> str:
        """How an address names it: ``NAME@VERSION``, or ``base:NAME@VERSION``."""
        return f"{'base:' * self.bare}{self.adapter}@{self.version}"

    @classmethod
    def parse(cls, reference: str) -> Subject:
        """Return the subject that a reference means.

        Raises:
            RegistryError: If it is none.
        """
        match = _REFERENCE.fullmatch(reference)
        try:
            if match is not None:
                return cls(adapter=match["adapter"], version=int(match["version"]), bare=match["bare"] is not None)
        except ValueError as error:
            raise RegistryError(f"{reference[:120]!r} names no version: {error}") from error
        raise RegistryError(f"{reference[:120]!r} must be NAME@VERSION, or base:NAME@VERSION for its base model")


def _sendable(text: str) -> str:
    return checked_text(text, "the prompt")


class Turn(Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, AfterValidator(_sendable)]


class Sampling(Frozen):
    """How an answer is made; temperature 0 is greedy, and then neither ``top_p`` nor the seed counts."""

    max_new_tokens: int = Field(default=128, ge=1, le=2048)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=8)


class Ask(Frozen):
    """Ask the same of several; the last turn is the user's."""

    kind: Literal["ask"] = "ask"
    id: str
    subjects: tuple[Subject, ...] = Field(min_length=1, max_length=MOST_VERSIONS + 1)
    turns: tuple[Turn, ...] = Field(min_length=1)
    sampling: Sampling = Sampling()


class Cancel(Frozen):
    """End an answer that is being made, or take a request that waits out of the queue."""

    kind: Literal["cancel"] = "cancel"
    id: str


Request = Annotated[Ask | Cancel, Field(discriminator="kind")]
REQUEST: TypeAdapter[Ask | Cancel] = TypeAdapter(Request)


class Event(Frozen):
    """Something that the worker (or, for ``queued`` and ``failed``, the client) says of a request.

    Attributes:
        id: The request.
        kind: ``queued`` (place in it), ``loading``, ``started``, ``piece`` (of text), ``answered``, ``refused`` (this
            subject cannot answer), ``failed`` (the request as a whole), ``done``.
        subject: Which of the request's subjects; None where it is about the whole of it.
        text: The piece, the stage or the reason; when it started, what is worth knowing.
        place: How many requests are answered before this one.
        seen: When it started, the prompt as the model got it: a text, or turns.
        device: When it started, what it runs on.
        tokens: Tokens of the whole answer.
        first_token_s: Seconds to the first of them.
        tokens_per_s: How many followed in a second; None where none did.
        ended: Why the answer ended: the model ended it, a stop text came, it had its length, or it was cancelled.
    """

    id: str
    kind: Literal["queued", "loading", "started", "piece", "answered", "refused", "failed", "done"]
    subject: int | None = None
    text: str = ""
    place: int = 0
    seen: str | list[dict[str, Any]] | None = None
    device: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    ended: Literal["end", "stop", "length", "cancelled"] | None = None
