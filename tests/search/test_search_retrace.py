"""What is worked out from stored numbers is what the pruner decided when it had the trial before it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from search_helpers import Make, make_space

from sweeper.config.adapter import LoRA
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.model import ModelConfig
from sweeper.config.search import SearchConfig
from sweeper.config.technique import SFT
from sweeper.config.trial import Hyperparameters, Outcome, TrialResult, TrialSpec
from sweeper.search.pruners.history import Retraced, pruner_of, retrace
from sweeper.search.study import Candidate, Search
from sweeper.store import Database

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = make_space(learning_rate={"low": 1e-5, "high": 1e-1, "log": True}, epochs=[1, 2], batch_size=8, warmup_steps=2)
STEPS, POINTS = 20, 10
METRIC = {"minimize": "eval_loss", "maximize": "exact_match"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "store.db", create=True) as found:
        yield found


class Runner:
    """Runs trials as an executor does: every report goes to the search and into the database, one second apart."""

    def __init__(self, search: Search, database: Database, config: SearchConfig, metric: str, folder: Path) -> None:
        self.search, self.database, self.metric, self.folder = search, database, metric, folder
        self.clock = 0.0
        self.random = random.Random(5)
        evaluation = EvaluationConfig(metric=metric)
        database.studies.create(
            "study",
            file_name="study.yaml",
            file_text="",
            config={"search": config.model_dump(mode="json"), "evaluation": evaluation.model_dump(mode="json")},
            space={},
            seed=1,
            packages={},
            data_sha256={},
            base_model="m",
            base_model_fingerprint="f",
        )

    def begin(self, candidate: Candidate) -> None:
        values = {name: value for name, value in candidate.parameters.items() if name != "weight"}
        spec = TrialSpec(
            study="study",
            number=candidate.number,
            seed=candidate.seed,
            model=ModelConfig(name="m"),
            model_folder=self.folder,
            technique=SFT(),
            adapter=LoRA(),
            train=self.folder,
            validation=self.folder,
            hyperparameters=Hyperparameters.model_validate(values),
            evaluation=EvaluationConfig(),
            device="cpu",
            folder=self.folder,
        )
        total = STEPS * int(spec.hyperparameters.epochs)
        self.search.plan(spec.number, length=spec.hyperparameters.epochs, warmup_end_percent=100 * 2 / total)
        self.database.trials.start(spec, candidate.kind, total_steps=total, confirms=candidate.confirms)
        self.started = {**getattr(self, "started", {}), spec.number: (self.clock, total)}

    def value(self, number: int, point: int) -> float:
        draw = random.Random(f"{number}:{point}").gauss(0, 0.2)
        quality = random.Random(number).random() + draw + 2 / point
        return quality if self.metric == "eval_loss" else 1 / (1 + quality**2)

    def report(self, number: int, point: int, *, announce: bool = True) -> bool:
        begun, total = self.started[number]
        value, step = self.value(number, point), point * total // POINTS
        if announce:
            self.clock += 1
            self.search.announce(number, step / total, value)
        self.clock += 0.001
        self.database.metrics.add("study", [(number, step, {self.metric: value, "loss": 1.0}, self.clock - begun)])
        return self.search.report(number, step / total, value)

    def end(self, number: int, outcome: Outcome, point: int) -> None:
        begun, total = self.started[number]
        done = TrialResult(
            number=number,
            outcome=outcome,
            value=self.value(number, point) if outcome is Outcome.COMPLETE else None,
            steps=point * total // POINTS,
            total_steps=total,
            epochs_trained=1.0,
            started_at=(BEGUN + timedelta(seconds=begun)).isoformat(),
            finished_at=(BEGUN + timedelta(seconds=self.clock)).isoformat(),
        )
        self.database.trials.finish("study", done)
        self.search.tell(number, done)

    def one_after_another(self) -> None:
        while (candidate := self.search.ask()) is not None:
            self.begin(candidate)
            if candidate.number % 7 == 5:
                weak = self.report(candidate.number, 1)
                self.end(candidate.number, Outcome.PRUNED if weak else Outcome.FAILED, 1)
                continue
            for point in range(1, POINTS + 1):
                if self.report(candidate.number, point):
                    self.end(candidate.number, Outcome.PRUNED, point)
                    break
            else:
                self.end(candidate.number, Outcome.COMPLETE, POINTS)

    def together(self, slots: int = 4) -> None:
        """Several at a time, all evaluated before any is judged, as the packed executor does."""
        under_way: dict[int, int] = {}
        while True:
            while len(under_way) < slots and (candidate := self.search.ask()) is not None:
                self.begin(candidate)
                under_way[candidate.number] = 0
            if not under_way:
                return
            self.clock += 1
            for number in under_way:
                under_way[number] += 1
                total = self.started[number][1]
                point = under_way[number]
                self.search.announce(number, (point * total // POINTS) / total, self.value(number, point))
            for number, point in list(under_way.items()):
                weak = self.report(number, point, announce=False)
                if weak or point == POINTS:
                    self.end(number, Outcome.PRUNED if weak else Outcome.COMPLETE, point)
                    del under_way[number]


PRUNERS: list[Any] = [
    "auto",
    {"kind": "asha", "eta": 3, "start": 0.1},
    {"kind": "hyperband", "eta": 3},
    {"kind": "median", "startup_trials": 3, "start": 0.2},
    {"kind": "percentile", "percentile": 40, "startup_trials": 2, "start": 0.2},
    {"kind": "patient", "patience": 2, "min_delta": 0.05},
    {"kind": "threshold", "upper": 2.2, "lower": 0.1, "start": 0.1},
    {"kind": "wilcoxon", "p_threshold": 0.2, "startup_steps": 3},
]


@pytest.fixture
def ran(make: Make, database: Database, tmp_path: Path) -> Any:
    def run(pruner: Any, direction: str, *, together: bool = False) -> list[tuple[Any, Retraced]]:
        metric = METRIC[direction]
        config = {"n_trials": 24, "sampler": "random", "pruner": pruner, "confirm": 0.1}
        search = make(space=SPACE, evaluation=EvaluationConfig(metric=metric), **config)
        runner = Runner(search, database, SearchConfig.model_validate(config), metric, tmp_path)
        runner.together() if together else runner.one_after_another()
        study = database.studies.get("study")
        return [(trial, retrace(database, study, trial)) for trial in database.trials.all("study")]

    return run


@pytest.mark.parametrize(
    ("direction", "together"),
    [
        pytest.param("minimize", False, id="inline", marks=pytest.mark.long),
        pytest.param("maximize", True, id="packed"),
    ],
)
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner if isinstance(pruner, str) else pruner["kind"])
def test_every_decision_is_found_again(ran: Any, pruner: Any, direction: str, together: bool) -> None:
    found = ran(pruner, direction, together=together)
    outcomes = [trial.outcome for trial, _ in found]
    assert {Outcome.PRUNED, Outcome.COMPLETE} <= set(outcomes), "else nothing was decided"
    for trial, retraced in found:
        assert retraced.agrees, (trial.number, trial.outcome, retraced)
        if trial.outcome is Outcome.PRUNED:
            assert retraced.judgements[-1].pruned and "pruned" in retraced.judgements[-1].words


def test_a_rung_names_place_threshold_and_rivals(ran: Any) -> None:
    found = ran("auto", "minimize")
    pruned = [retraced.judgements[-1] for trial, retraced in found if trial.outcome is Outcome.PRUNED]
    for judgement in pruned:
        assert judgement.rung in (33, 67) and judgement.place > judgement.going_on
        assert judgement.value > judgement.threshold
        better = [value for _, value in judgement.compared if value < judgement.value]
        assert judgement.place == len(better) + 1
        assert f"place {judgement.place} of {len(judgement.compared) + 1}" in judgement.words
    numbers = {number for judgement in pruned for number, _ in judgement.compared}
    failed = {trial.number for trial, _ in found if trial.outcome is Outcome.FAILED}
    assert failed and not numbers & failed, "failed trials are not compared with"


def test_confirmations_and_studies_without_a_pruner_say_why_nothing_was_judged(ran: Any, database: Database) -> None:
    found = ran("auto", "minimize")
    repeated = [retraced for trial, retraced in found if trial.confirms is not None]
    assert repeated and all("never pruned" in str(each.never) for each in repeated)
    study = database.studies.get("study")
    database.studies.set_config("study", {**study.config, "search": {"pruner": "none"}})
    trial = database.trials.get("study", 0)
    assert retrace(database, database.studies.get("study"), trial).never == "this study prunes nothing"


def test_an_end_that_no_rule_gives_is_said_to_be_one(ran: Any, database: Database) -> None:
    found = ran("auto", "minimize")
    weak = next(trial for trial, retraced in found if trial.outcome is Outcome.PRUNED)
    study = database.studies.get("study")
    other = database.studies.set_config("study", {**study.config, "search": {"pruner": {"kind": "patient"}}})
    assert other is None and not retrace(database, database.studies.get("study"), weak).agrees


def test_a_configuration_of_another_version_has_no_pruner(ran: Any, database: Database) -> None:
    ran("auto", "minimize")
    for config in ({"of": "the future", "search": {"pruner": {"kind": "oracle"}}}, {"search": 3}):
        database.studies.set_config("study", config)
        assert pruner_of(database.studies.get("study")).kind in ("none", "auto")
