"""``sweeper guide``: the guides that lie beside the code they describe, in the terminal."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated

import typer
from rich.markdown import Markdown

from sweeper.cli.output import Json, console, emit_json, say, table
from sweeper.cli.shipped import DASHBOARD, STUDIES, shipped_folder
from sweeper.errors import UserError

_PACKAGE = "sweeper"
_WIDTH = 120
"""Longest line of a guide on a wide terminal, in characters."""


GUIDES = {
    "studies": (STUDIES, "README.md"),
    "example-data": (STUDIES, "data/itn/README.md"),
    "search": (_PACKAGE, "search/README.md"),
    "training": (_PACKAGE, "training/README.md"),
    "packing": (_PACKAGE, "packing/README.md"),
    "evaluation": (_PACKAGE, "evaluation/README.md"),
    "adapters": (_PACKAGE, "registry/README.md"),
    "export": (_PACKAGE, "export/README.md"),
    "cluster": (_PACKAGE, "executors/README.md"),
    "dashboard": (DASHBOARD, "README.md"),
    "storage": (_PACKAGE, "store/README.md"),
    "figures": (_PACKAGE, "FIGURES.md"),
}
"""The package and the file of every guide, by topic."""


def guide(
    topic: Annotated[str | None, typer.Argument(help="Topic of the guide; lists all topics by default.")] = None,
    as_json: Json = False,
) -> None:
    """Read a guide in the terminal."""
    if topic is None:
        topics = {name: _summary(read(name)) for name in GUIDES}
        if as_json:
            emit_json(topics)
        else:
            console().print(table(("topic", "about"), topics.items()))
            say("next: sweeper guide TOPIC")
        return
    if topic not in GUIDES:
        near = get_close_matches(topic, GUIDES)
        meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UserError(f"there is no guide {topic!r}; {meant}topics: {', '.join(GUIDES)}")
    text = read(topic)
    if as_json:
        emit_json({"topic": topic, "summary": _summary(text), "text": text})
        return
    screen = console()
    if screen.is_terminal:
        screen.print(Markdown(_without_images(text), hyperlinks=False), width=min(screen.width, _WIDTH))
    else:
        typer.echo(text, nl=False)


def read(topic: str) -> str:
    """Return the Markdown of a guide, without comments."""
    package, file = GUIDES[topic]
    text = (shipped_folder(package) / file).read_text(encoding="utf-8")
    return re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)


def _summary(text: str) -> str:
    """Return the first sentence after the title."""
    paragraph = next(part for part in text.split("\n\n") if part.strip() and not part.startswith("#"))
    return re.split(r"(?<=\.)\s", " ".join(paragraph.split()))[0].replace("`", "")


def _without_images(text: str) -> str:
    """Return Markdown without pictures, which a terminal does not show."""
    return re.sub(r"!\[[^\]]*\]\([^)]*\)\n*|<picture>.*?</picture>|<br>", "", text, flags=re.DOTALL)
