"""The head of an exported model: the vocabulary, or a single score."""

from __future__ import annotations

from typing import Any

from sweeper.export.source import ExportSource


def scores(source: ExportSource) -> bool:
    """Return whether the adapter makes a reward model, which scores texts."""
    return source.spec.technique.head == "score"


def class_name(source: ExportSource) -> str:
    """Return the name of transformers' class that loads the model."""
    return "AutoModelForSequenceClassification" if scores(source) else "AutoModelForCausalLM"


def model_class(source: ExportSource) -> Any:
    """Return that class."""
    import transformers

    return getattr(transformers, class_name(source))


def head_arguments(source: ExportSource) -> dict[str, int]:
    """Return what that class needs to know of the head; what was saved whole knows it itself."""
    return {"num_labels": 1} if scores(source) else {}
