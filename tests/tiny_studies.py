"""Studies on the tiny model, for fixtures of any scope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from sweeper.config.loader import StudyFile, load_study

MERGED = ("technique", "search", "evaluation", "executor", "data")


def study_writer(
    tiny_model: Path, tiny_data: Callable[[str], dict[str, str]], folder: Path
) -> Callable[..., StudyFile]:
    """Return what writes study files into a folder; for fixtures of any scope."""

    def write(name: str = "tiny", shape: str = "prompt_completion", **parts: Any) -> StudyFile:
        study: dict[str, Any] = {
            "name": name,
            "model": str(tiny_model),
            "data": tiny_data(shape),
            "technique": {"kind": "sft", "max_length": 64},
            "adapter": {"kind": "lora"},
            "search": {
                "space": {
                    "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
                    "lora_rank": [2, 4],
                    "batch_size": 8,
                    "epochs": 2,
                    "lora_alpha": 8,
                    "lora_dropout": 0.0,
                },
                "n_trials": 4,
                "known_good": False,
            },
            "evaluation": {"points": 3, "metrics": ["exact_match", "perplexity"], "max_new_tokens": 6, "candidates": 2},
            "executor": {"device": "cpu"},
            "seed": 3,
        }
        for part, value in parts.items():
            study[part] = {**study[part], **value} if part in MERGED else value
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        return load_study(path)

    return write


@contextmanager
def beginning(study_file: Callable[..., StudyFile]) -> Iterator[Callable[..., Any]]:
    """Yield the same for studies of a writer, in whatever home is the present one."""
    with ExitStack() as stack:

        def context(listener: Any = None, stop: Any = None, **parts: Any) -> Any:
            from sweeper.executors.listener import Listener
            from sweeper.executors.stop_request import StopRequest
            from sweeper.paths import Home
            from sweeper.store import Database
            from sweeper.study.context import begin
            from sweeper.study.resolve import resolve_study

            file, home = study_file(**parts), Home.current()
            database = stack.enter_context(Database.open(home.database, create=True))
            resolved = resolve_study(file)
            return begin(file, resolved, "cpu", home, database, listener or Listener(), stop or StopRequest())

        yield context
