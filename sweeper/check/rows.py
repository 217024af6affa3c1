"""Warnings about rows as the model reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sweeper.config.evaluation import LOSSES
from sweeper.config.technique import SFT
from sweeper.data.formats import is_chat, texts_of
from sweeper.data.rendering import Rendering, Row, left_out, render
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError
from sweeper.study.resolve import ResolvedModel, ResolvedStudy


def row_warnings(
    study: ResolvedStudy,
    model: ResolvedModel,
    tokenizer: ModelTokenizer,
    rows: Sequence[Row],
    rendered: Sequence[Rendering],
) -> list[str]:
    """Return what a user should know of a sample of the training rows.

    Raises:
        DataError: If a row has a token that the model has no embedding for.
    """
    _require_embeddings(model, rendered)
    _require_answers(model, rows, rendered)
    found = [_special_tokens(tokenizer, rows), _first_token(tokenizer, rows), _positions(study, model)]
    if is_chat(study.splits.kind):
        found += [_left_out(rows, rendered), _end_of_turn(tokenizer), _generation_prompt(tokenizer, rows, rendered)]
        found.append(_turns(study, rendered))
    found.append(_longest_answer(study, tokenizer))
    return [warning for warning in found if warning]


def _require_embeddings(model: ResolvedModel, rendered: Sequence[Rendering]) -> None:
    size = model.facts.vocab_size if model.facts else None
    number, largest = max(enumerate(max(row.ids, default=0) for row in rendered), key=lambda pair: pair[1])
    if size is not None and largest >= size:
        token = rendered[number].encoding.tokens[rendered[number].ids.index(largest)]
        raise DataError(
            f"train: a row has the token {token!r} ({largest:,}), and {model.found.name} has embeddings for {size:,} "
            "tokens only: tokens were added to its tokenizer and not to the model; save the model again after "
            "model.resize_token_embeddings(len(tokenizer)), or take the tokenizer that came with it"
        )


def _require_answers(model: ResolvedModel, rows: Sequence[Row], rendered: Sequence[Rendering]) -> None:
    if all("assistant" in left_out(row, of.text) for row, of in zip(rows, rendered, strict=True)):
        raise DataError(
            f"train: the chat template of {model.found.name} leaves out what the assistant says in every row, so there "
            "is nothing to learn; use another model, or give the data as prompt and completion text"
        )


def _special_tokens(tokenizer: ModelTokenizer, rows: Sequence[Row]) -> str:
    special = [token for token in tokenizer.special_ids.values() if token]
    texts = ([text.removeprefix(tokenizer.first) for text in texts_of(row)] for row in rows)
    with_some = [place for place, of in enumerate(texts, 1) if any(token in text for token in special for text in of)]
    if not with_some:
        return ""
    return (
        f"train: {len(with_some):,} of {len(rows):,} rows contain a special token of the model in their text (first: "
        f"row {with_some[0]} of those counted), which the model may read as the end of a turn"
    )


def _first_token(tokenizer: ModelTokenizer, rows: Sequence[Row]) -> str:
    texts = [row.get("text", row.get("prompt")) for row in rows]
    count = sum(tokenizer.begins_twice(text) for text in texts if isinstance(text, str))
    if not count:
        return ""
    return (
        f"train: {count:,} of {len(rows):,} rows begin with {tokenizer.first}, which the tokenizer adds itself; it is "
        "not written twice"
    )


def _positions(study: ResolvedStudy, model: ResolvedModel) -> str:
    positions = model.facts.max_positions if model.facts else None
    extra = max(adapter.extra_tokens for adapter in study.config.variants(study.space.space))
    most = study.config.technique.max_length
    if positions is None or most + extra <= positions:
        return ""
    virtual = f" with {extra:,} virtual tokens" if extra else ""
    return f"max_length {most:,}{virtual} exceeds the {positions:,} positions that the model supports"


def _left_out(rows: Sequence[Row], rendered: Sequence[Rendering]) -> str:
    counts = Counter(what for row, of in zip(rows, rendered, strict=True) for what in set(left_out(row, of.text)))
    if not counts:
        return ""
    listed = ", ".join(f"{what} ({count:,} rows)" for what, count in counts.most_common())
    return f"train: the model's chat template leaves out what is in the rows: {listed}"


def _end_of_turn(tokenizer: ModelTokenizer) -> str:
    end = tokenizer.end_of_turn
    if end is not None:
        return ""
    return (
        "the model's chat template ends no turn of the assistant's with a special token; the end-of-sequence token "
        f"{tokenizer.eos} is trained at the end of each row, and servers must stop there"
    )


def _generation_prompt(tokenizer: ModelTokenizer, rows: Sequence[Row], rendered: Sequence[Rendering]) -> str:
    """Compare the prompt that servers write with the one in a row."""
    turns = rows[0].get("messages") or [*rows[0]["prompt"], *rows[0].get("completion", ())]
    if turns[-1]["role"] != "assistant":
        return ""
    asked = tokenizer.render(turns[:-1], ask=True, tools=rows[0].get("tools"))
    if rendered[0].text.startswith(asked):
        return ""
    common = next(place for place in range(len(asked) + 1) if not rendered[0].text.startswith(asked[: place + 1]))
    return (
        f"the chat template ends a prompt with {asked[common:]!r}, which is not in the rows as trained; answers are "
        "generated from the prompt as trained, and servers that add it ask another question"
    )


def _turns(study: ResolvedStudy, rendered: Sequence[Rendering]) -> str:
    technique = study.config.technique
    several = sum(len(row.answers) > 1 for row in rendered)
    if not several or not isinstance(technique, SFT) or not technique.completion_only:
        return ""
    taught = "all of them" if technique.turns == "all" else "the last turn only"
    other = "last" if technique.turns == "all" else "all"
    return (
        f"train: {several:,} of {len(rendered):,} rows have several turns of the assistant's, and {taught} carry the "
        f"loss; technique.turns: {other} changes that"
    )


def _longest_answer(study: ResolvedStudy, tokenizer: ModelTokenizer) -> str:
    evaluation = study.config.evaluation
    on_text = [name for name in (evaluation.metric, *evaluation.metrics) if name not in LOSSES]
    if evaluation.max_new_tokens is None or not on_text or study.config.technique.rows != "answers":
        return ""
    answers = [len(row.answer) for row in render(study.splits.test, tokenizer)]
    long = sum(length > evaluation.max_new_tokens for length in answers)
    if not long:
        return ""
    return (
        f"test: {long:,} of {len(answers):,} right answers have more than evaluation.max_new_tokens "
        f"({evaluation.max_new_tokens:,}) tokens, so no model can give them; the longest has {max(answers):,}; leave "
        "it out to generate as many as the answers need"
    )
