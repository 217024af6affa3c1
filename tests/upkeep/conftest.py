"""A home with a study in it, as one that was run leaves it, without any training: real tables, real files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kept_study import KeptStudy


@pytest.fixture
def begun(tmp_path: Path) -> Callable[..., KeptStudy]:
    """Return what begins a study; parts of its configuration may be given."""
    from safetensors.numpy import save_file

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": np.zeros(3, dtype=np.float32)}, model / "model.safetensors")
    opened = []

    def begin(name: str = "kept", **parts) -> KeptStudy:
        opened.append(KeptStudy(name, model, **parts))
        return opened[-1]

    yield begin
    for each in opened:
        each.database.close()


@pytest.fixture
def old() -> Callable[[Path], None]:
    """Return what makes paths look untouched for a day."""

    def age(*paths: Path) -> None:
        at = time.time() - 86_400
        for path in paths:
            for each in (*path.rglob("*"), path):
                os.utime(each, (at, at), follow_symlinks=False)

    return age
