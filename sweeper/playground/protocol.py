"""Messages between client and worker, one JSON object a line: requests one way, events the other."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from sweeper.config.base import Frozen
from sweeper.config.study import Name
from sweeper.data.layouts import text as checked_text
from sweeper.errors import RegistryError

MOST_VERSIONS = 4
"""Versions in one request: more cannot be read side by side. A bare base model may join them."""

IDLE_S = 600.0
"""Seconds without a request after which the worker exits."""

_REFERENCE = re.compile(r"(?P<bare>base:)?(?P<adapter>[^@:]+)@(?P<version>[1-9]\d{0,8})")


class Subject(Frozen):
    """A registered version or, if ``bare``, its base model, loaded in the same way."""

    adapter: Name
    version: int = Field(ge=1)
    bare: bool = False

    @property
    def reference(self) -> str:
        """Its name in an address: ``NAME@VERSION``, or ``base:NAME@VERSION``."""
        return f"{'base:' * self.bare}{self.adapter}@{self.version}"

    @classmethod
    def parse(cls, reference: str) -> Subject:
        """Return the subject of a reference; RegistryError if that is malformed."""
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
    """Sampling settings; temperature 0 is greedy, whatever ``top_p`` and the seed."""

    max_new_tokens: int = Field(default=128, ge=1, le=2048)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=8)


class Ask(Frozen):
    """A request to several subjects; the last turn is the user's."""

    kind: Literal["ask"] = "ask"
    id: str
    subjects: tuple[Subject, ...] = Field(min_length=1, max_length=MOST_VERSIONS + 1)
    turns: tuple[Turn, ...] = Field(min_length=1)
    sampling: Sampling = Sampling()


class Cancel(Frozen):
    """A request to stop an answer, or to leave the queue."""

    kind: Literal["cancel"] = "cancel"
    id: str


REQUEST: TypeAdapter[Ask | Cancel] = TypeAdapter(Annotated[Ask | Cancel, Field(discriminator="kind")])

Ended = Literal["end", "stop", "length", "cancelled"]
"""Why an answer ended: the model ended it, a stop text came, it had its full length, or it was cancelled."""


class Event(Frozen):
    """An event of a request, from the worker or, for ``queued`` and ``failed``, from the client.

    Attributes:
        id: The request.
        kind: ``queued`` (with its place), ``loading``, ``started``, ``piece`` (of text), ``answered``, ``refused``
            (this subject cannot answer), ``failed`` (the request as a whole), ``done``.
        subject: Index among the request's subjects; None for the request as a whole.
        text: The piece, the stage or the reason; of ``started`` a note.
        place: Number of requests to be answered first.
        seen: Of ``started``, the prompt as the model got it: a text, or turns.
        device: Of ``started``, the device.
        tokens: Tokens of the whole answer.
        first_token_s: Seconds to the first token.
        tokens_per_s: Tokens per second after it; None if there were none.
        ended: Why the answer ended.
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
    ended: Ended | None = None
