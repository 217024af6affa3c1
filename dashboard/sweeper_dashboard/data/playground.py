"""The playground: the versions to ask, requests to the worker, and feedback on the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.data.inspection import answers_of
from sweeper.paths import Home
from sweeper.playground.client import PendingRequest, Playground
from sweeper.playground.protocol import MOST_VERSIONS, Event, Sampling, Subject, Turn
from sweeper.redact import clean
from sweeper.registry.feedback import MESSAGES
from sweeper.store import Feedback
from sweeper_dashboard.data import frames, home

__all__ = ["MOST_VERSIONS", "Event", "PendingRequest", "Sampling", "Subject", "Turn"]

EXAMPLES = 40
"""Prompts of the test split that are offered."""

_LATEST = 200
"""Feedback that is listed."""


@dataclass(frozen=True)
class PlaygroundVersion:
    """A version that can be asked, labelled with its name, version and stage."""

    subject: Subject
    label: str
    study: str
    base_model: str


@dataclass(frozen=True)
class ExamplePrompt:
    """A row of a test split: its turns, and the reference answer."""

    turns: tuple[Turn, ...]
    due: str

    @property
    def label(self) -> str:
        """The question on one line."""
        line = " ".join(clean(self.turns[-1].content).split())
        return line if len(line) <= 90 else line[:89] + "…"


def choices() -> dict[str, PlaygroundVersion]:
    """Return every version that generates text by its reference, newest first; reward models are left out."""
    with home.database() as database:
        found = database.adapters.all()
        scoring = {
            study.name for study in database.studies.all() if study.config.get("technique", {}).get("kind") == "reward"
        }
    versions = sorted(found, key=lambda record: record.created_at, reverse=True)
    made = [
        PlaygroundVersion(
            subject=Subject(adapter=record.name, version=record.version),
            label=f"{record.name} v{record.version}, {record.stage.value}",
            study=record.study,
            base_model=Path(clean(record.lineage.get("base_model", ""))).name,
        )
        for record in versions
        if record.study not in scoring
    ]
    return {choice.subject.reference: choice for choice in made}


def examples(study: str) -> list[ExamplePrompt]:
    """Return prompts of a study's test split; none if it has no prompts, or its data are gone."""
    path = Home.current().study(study).data / "test.jsonl"
    return [found for row in _first_rows(path) if (found := _example(row)) is not None]


def ask(references: Iterable[str], turns: Iterable[Turn], sampling: Sampling) -> PendingRequest:
    """Send versions a prompt; one worker of the home answers all users of the dashboard."""
    return worker(Home.current()).ask([Subject.parse(each) for each in references], list(turns), sampling)


@cache
def worker(of: Home) -> Playground:
    """Return the worker of a home, a separate process that ends with this one."""
    return Playground(of)


def give(
    actor: str,
    reference: str,
    seen: str | list[dict[str, Any]],
    answer: str,
    *,
    settings: Mapping[str, Any],
    good: bool | None = None,
    correction: str | None = None,
) -> None:
    """Store feedback on an answer.

    Args:
        actor: Who gave it.
        reference: The version that answered.
        seen: The prompt as the model received it.
        answer: The answer.
        settings: The sampling settings.
        good: The rating, if any.
        correction: The correct answer, if given.

    Raises:
        DataError: If it is empty, or too long to be stored.
        SweeperError: If the version is no longer registered.
    """
    subject = Subject.parse(reference)
    with home.changing() as database:
        records = {record.version: record for record in database.adapters.all(subject.adapter)}
        if subject.version not in records:
            raise home.SweeperError(f"{subject.reference} is no longer registered, so feedback on it cannot be stored")
        database.feedback.add(
            Feedback(
                at=datetime.now(UTC),
                actor=actor,
                adapter=None if subject.bare else subject.adapter,
                version=None if subject.bare else subject.version,
                base_model=str(records[subject.version].lineage.get("base_model", "")),
                prompt=seen if isinstance(seen, str) else str(seen[-1]["content"]),
                answer=answer,
                good=good,
                correction=correction,
                settings={
                    **settings,
                    **({"base_of": f"{subject.adapter}@{subject.version}"} if subject.bare else {}),
                    **({} if isinstance(seen, str) else {MESSAGES: seen}),
                },
            )
        )


def given(references: Iterable[str]) -> pd.DataFrame:
    """Return the feedback on the adapters of some versions, latest first."""
    names = {Subject.parse(reference).adapter for reference in references}
    with home.database() as database:
        found = [each for name in names for each in database.feedback.all(adapter=name, limit=_LATEST)]
    rows = (
        {
            "given (UTC)": each.at,
            "by": each.actor,
            "version": f"{each.adapter} v{each.version}",
            "rating": {True: "up", False: "down", None: ""}[each.good],
            "prompt": each.prompt,
            "answer": each.answer,
            "correction": each.correction or "",
        }
        for each in sorted(found, key=lambda each: each.at, reverse=True)[:_LATEST]
    )
    return frames.frame(rows, ["given (UTC)", "by", "version", "rating", "prompt", "answer", "correction"])


def _first_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in islice(file, EXAMPLES)]
    except (OSError, ValueError):
        return []  # the page does without examples; the worker reports data that it needs


def _example(row: Mapping[str, Any]) -> ExamplePrompt | None:
    prompt = row["messages"][:-1] if "messages" in row else row.get("prompt")
    if not prompt:
        return None
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    due = answers_of(row)
    return ExamplePrompt(tuple(Turn.model_validate(turn) for turn in turns), due[0] if due else "")
