"""The studies that are killed: small ones whose training, evaluation, scoring and registering are real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAME = "killed"


@dataclass(frozen=True)
class Scene:
    """A kind of study.

    Attributes:
        name: What the table calls it.
        parts: What it has besides ``_STUDY``, key by key.
        ordered: Whether the order of its trials is fixed, so that an undisturbed run ends with the very same.
    """

    name: str
    parts: Mapping[str, Any]
    ordered: bool

    @property
    def trials(self) -> int:
        """Trials it is to end with."""
        return int({**_STUDY["search"], **self.parts.get("search", {})}["n_trials"])


_STUDY: dict[str, Any] = {
    "name": NAME,
    "technique": {"kind": "sft", "max_length": 64},
    "adapter": {"kind": "lora"},
    "search": {
        "space": {
            "learning_rate": {"low": 5e-3, "high": 3e-2, "log": True},
            "lora_rank": [2, 4],
            "batch_size": 8,
            "epochs": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
        },
        "n_trials": 5,
        "known_good": False,
        "confirm": 0.2,
        "confirm_top": 1,
        "pruner": "none",
    },
    "evaluation": {
        "metric": "exact_match",
        "metrics": ["exact_match"],
        "points": 3,
        "max_new_tokens": 4,
        "candidates": 2,
    },
    # A trial may be killed as often as it comes; and checkpoints are so near that kills find some.
    "executor": {"device": "cpu", "max_retries": 1000, "checkpoint_s": 0.2, "grace_s": 2},
    "seed": 3,
}

SCENES = (
    Scene("packed, one slot", {"executor": {"slots": 1}}, ordered=True),
    Scene("packed, asha", {"executor": {"slots": 2}, "search": {"n_trials": 7, "pruner": "asha"}}, ordered=False),
    Scene("one by one", {"executor": {"kind": "inline"}, "search": {"n_trials": 4}}, ordered=True),
)

SPREAD = (Scene("a process a device", {"executor": {"kind": "per_gpu", "devices": 2, "slots": 1}}, ordered=False),)
"""Where several processes train, each of which may be killed."""

CLUSTER = (Scene("ray, two nodes", {"executor": {"kind": "ray", "slots": 1}}, ordered=False),)
"""Where they are actors on nodes, each of which may be killed; the address of the cluster's head is still to come."""


class Stage:
    """The model and the data that all studies of a run of the harness share."""

    def __init__(self, folder: Path) -> None:
        import tiny

        self.folder = folder
        self.model = tiny.build_model(folder / "model")
        splits = {"train": range(100, 124), "validation": range(300, 308), "test": range(500, 510)}
        self.data = {
            name: str(tiny.write_rows(folder / f"{name}.jsonl", (tiny.row("same_answer", n) for n in numbers)))
            for name, numbers in splits.items()
        }

    def write(self, scene: Scene, folder: Path, **parts: Any) -> Path:
        """Write the study file of a scene."""
        study = {**_STUDY, "model": str(self.model), "data": self.data}
        for changes in (scene.parts, parts):
            for part, value in changes.items():
                study[part] = {**study[part], **value} if isinstance(study.get(part), dict) else value
        path = folder / f"{NAME}.yaml"
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        return path
