"""Training rows from feedback on answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from sweeper.errors import DataError
from sweeper.files.atomic import write_atomically
from sweeper.store import Feedback

RowKind = Literal["completions", "pairs", "labelled"]
"""Right answers for ``sft``, pairs for ``dpo``, ``orpo``, ``cpo`` and ``reward``, labelled answers for ``kto``."""

MESSAGES = "messages"
"""The setting that holds the turns of a conversation, up to the answer."""

TrainingRow = dict[str, Any]


def training_rows(feedback: Iterable[Feedback], kind: RowKind) -> list[TrainingRow]:
    """Return feedback as rows of one kind, in the layout of a study's data, without duplicates.

    A correction is a right answer, and preferred to the answer that it corrects. An answer with a thumb up is right,
    too, and preferred to those to the same prompt with a thumb down.

    Raises:
        DataError: If some prompts are texts and others conversations: a data file holds one kind.
    """
    given = list(feedback)
    if len({_is_chat(each) for each in given}) > 1:
        raise DataError(
            "some of this feedback is on conversations and some on plain text, and a data file holds one kind; name "
            "one version"
        )
    rows = {json.dumps(row, ensure_ascii=False, sort_keys=True): row for row in _KINDS[kind](given)}
    return list(rows.values())


def write_rows(rows: Iterable[TrainingRow], path: Path) -> None:
    """Write rows as JSONL, atomically."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _completions(given: list[Feedback]) -> Iterator[TrainingRow]:
    for each in given:
        for answer in _right(each):
            yield {"prompt": _prompt(each), "completion": _answer(each, answer)}


def _pairs(given: list[Feedback]) -> Iterator[TrainingRow]:
    bad: dict[str, list[str]] = {}
    for each in given:
        if each.good is False or each.correction is not None:
            bad.setdefault(_key(each), []).append(each.answer)
    for each in given:
        for answer in _right(each):
            for worse in bad.get(_key(each), ()):
                if answer != worse and worse.strip():
                    yield {
                        "prompt": _prompt(each),
                        "chosen": _answer(each, answer),
                        "rejected": _answer(each, worse),
                    }


def _labelled(given: list[Feedback]) -> Iterator[TrainingRow]:
    for each in given:
        for answer in _right(each):
            yield {"prompt": _prompt(each), "completion": _answer(each, answer), "label": True}
        if (each.good is False or each.correction is not None) and each.answer.strip():
            yield {"prompt": _prompt(each), "completion": _answer(each, each.answer), "label": False}


_KINDS: dict[RowKind, Callable[[list[Feedback]], Iterator[TrainingRow]]] = {
    "completions": _completions,
    "pairs": _pairs,
    "labelled": _labelled,
}


def _right(feedback: Feedback) -> list[str]:
    """Return the right answer by this feedback, if there is one; a blank one cannot be learned."""
    right = feedback.correction if feedback.correction is not None else feedback.answer if feedback.good else ""
    return [right] if right.strip() else []


def _is_chat(feedback: Feedback) -> bool:
    return MESSAGES in feedback.settings


def _prompt(feedback: Feedback) -> Any:
    return feedback.settings[MESSAGES] if _is_chat(feedback) else feedback.prompt


def _answer(feedback: Feedback, text: str) -> Any:
    return [{"role": "assistant", "content": text}] if _is_chat(feedback) else text


def _key(feedback: Feedback) -> str:
    return json.dumps(_prompt(feedback), ensure_ascii=False, sort_keys=True)
