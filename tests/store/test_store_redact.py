from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.redact import redact
from sweeper.store import Database, Evaluation, Example, TrialKind

MARKER = 'planted "secret" 4711'


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET", "MY_TOKEN", "DB_PASSWORD", "PGPASSWORD"])
def test_values_of_secret_variables_go(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, MARKER)
    assert redact(f"failed with {MARKER}!") == f"failed with [{name} removed]!"


def test_other_variables_and_short_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONKEY", "banana-split")
    monkeypatch.setenv("USE_KEY", "true")
    monkeypatch.setenv("EMPTY_TOKEN", "")
    assert redact("a banana-split is true") == "a banana-split is true"


def test_a_secret_inside_another_leaves_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "abcdef")
    monkeypatch.setenv("B_KEY", "abcdef-ghijkl")
    assert "ghijkl" not in redact("x abcdef-ghijkl y")


@pytest.mark.parametrize("password", ["hunter2", "p@ss{0}", "100%:x"])
def test_passwords_in_urls_go(password: str) -> None:
    text = redact(f"cannot reach postgresql+psycopg://anna:{password}@db.example:5432/sweeper at all")
    assert password not in text
    assert text == "cannot reach postgresql+psycopg://anna:[password removed]@db.example:5432/sweeper at all"


def test_plain_urls_stay() -> None:
    text = "see http://localhost:8080/path?x=1 and https://example.com, me@example.com"
    assert redact(text) == text


def test_tokens_by_their_shape_go() -> None:
    assert redact("token hf_" + "a1B2" * 9) == "token [token removed]"


def test_hostile_text_takes_linear_time() -> None:
    text = "a-" * 500_000 + "://a:" * 100_000
    start = time.perf_counter()
    redact(text)
    assert time.perf_counter() - start < 10


def test_no_secret_reaches_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Callable[..., TrialSpec]
) -> None:
    marker = 'planted-marker-\u00e9"4711'
    monkeypatch.setenv("HF_TOKEN", marker)
    path = tmp_path / "x.db"
    with Database.open(path, create=True) as database:
        database.studies.create(
            "itn",
            file_name=f"{marker}.yaml",
            file_text=f"token: {marker}",
            config={"deep": [{"token": marker, marker: 1}]},
            space={"reasons": [marker]},
            seed=0,
            packages={"x": marker},
            data_sha256={"train": marker},
            base_model=f"/models/{marker}",
            base_model_fingerprint="f",
        )
        asked = spec(0)
        trl = asked.hyperparameters.model_copy(update={"trl": {"hub_token": marker}})
        database.trials.start(asked.model_copy(update={"hyperparameters": trl}), TrialKind.SAMPLED)
        now = "2026-01-01T00:00:00+00:00"
        ended = TrialResult(number=0, outcome=Outcome.FAILED, reason=f"no {marker}", started_at=now, finished_at=now)
        database.trials.finish("itn", ended)
        database.events.add("itn", marker, f"said {marker}", data={"token": marker})
        database.evaluations.add("itn", Evaluation(0, "test", ()), [Example(0, marker, marker, marker, {})])
        content = b"".join(file.read_bytes() for file in tmp_path.glob("x.db*"))
        assert database.studies.get("itn").config == {
            "deep": [{"token": "[HF_TOKEN removed]", "[HF_TOKEN removed]": 1}]
        }
    assert b"planted-marker" not in content + path.read_bytes()
    assert b"HF_TOKEN removed" in content
