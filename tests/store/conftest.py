from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.parameters import Hyperparameters
from sweeper.config.technique import SFT
from sweeper.config.trial import TrialSpec
from sweeper.database_url import Address, PostgresUrl
from sweeper.store import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """A database of each kind, where there is nothing yet."""
    if request.param == "sqlite":
        return tmp_path / "home" / "sweeper.db"
    server: PostgresUrl = request.getfixturevalue("server")
    return server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An open database of each kind."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            address: Address = tmp_path / "home" / "sweeper.db"
        else:
            address = stack.enter_context(request.getfixturevalue("postgres").database(empty=False))
        yield stack.enter_context(Database.open(address, create=True))


@pytest.fixture
def new_study(database: Database) -> Callable[..., None]:
    def create(name: str = "itn", **changes: Any) -> None:
        values: dict[str, Any] = {
            "file_name": "itn.yaml",
            "file_text": "name: itn\nmodel: smollm2-135m\n",
            "config": {"name": name, "seed": 3},
            "space": {"preset": "lora", "reasons": ["adapter is qlora"]},
            "seed": 3,
            "packages": {"torch": "2.13.0"},
            "data_sha256": {"train": "a" * 64},
            "base_model": "smollm2-135m",
            "base_model_fingerprint": "b" * 64,
        }
        database.studies.create(name, **(values | changes))

    return create


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., TrialSpec]:
    def make(number: int = 0, study: str = "itn", learning_rate: float = 1e-3) -> TrialSpec:
        return TrialSpec(
            study=study,
            number=number,
            seed=7,
            model=ModelConfig(name="smollm2-135m"),
            model_folder=tmp_path,
            technique=SFT(),
            adapter=LoRA(),
            train=tmp_path / "train.jsonl",
            validation=tmp_path / "validation.jsonl",
            hyperparameters=Hyperparameters(learning_rate=learning_rate, batch_size=8, epochs=1),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=tmp_path / "trial",
        )

    return make
