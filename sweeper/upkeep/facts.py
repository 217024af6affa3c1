"""Facts about a study, read once for all checks, and the inconsistencies that checks report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sweeper.paths import Home, StudyPaths
from sweeper.registry import Registry
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.stored_trials import StoredTrial, stored_trials
from sweeper.search.study import Search
from sweeper.store import Artifact, Database, StudyRecord, TrialRecord, stored_config
from sweeper.study.orders import space_of_study


@dataclass(frozen=True)
class Inconsistency:
    """A disagreement: its kind and description, advice, and its repair.

    Attributes:
        mend: Repairs it; None if that would be a guess.
        done: What the repair does, in the past tense.
    """

    kind: str
    text: str
    advice: str
    mend: Callable[[], object] | None = None
    done: str = ""


@dataclass(frozen=True)
class Facts:
    """The facts about a study.

    Attributes:
        alive: Whether a process runs it; what may be changing is then not checked.
        trials: By number, as are ``stored`` and ``artifacts``.
        stored: Its trials in Optuna's tables; None if there is no search.
        artifacts: The recorded files.
    """

    home: Home
    database: Database
    study: StudyRecord
    alive: bool
    trials: Mapping[int, TrialRecord]
    stored: Mapping[int, StoredTrial] | None
    artifacts: Mapping[int, tuple[Artifact, ...]]
    storage: AtomicStorage

    @classmethod
    def of(cls, home: Home, database: Database, name: str, storage: AtomicStorage) -> Facts:
        """Read everything.

        Raises:
            StudyStateError: If there is no such study.
        """
        study, artifacts = database.studies.get(name), defaultdict[int, tuple[Artifact, ...]](tuple)
        for each in database.artifacts.all(name):
            artifacts[each.number] += (each,)
        return cls(
            home=home,
            database=database,
            study=study,
            alive=runs(database, name),
            trials={trial.number: trial for trial in database.trials.all(name)},
            stored=stored_trials(name, storage),
            artifacts=artifacts,
            storage=storage,
        )

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def paths(self) -> StudyPaths:
        """The study's folder."""
        return self.home.study(self.name)

    @property
    def registry(self) -> Registry:
        """The home's registry."""
        return Registry(self.home, self.database)

    def search(self) -> Search:
        """Open the study's search, to change it.

        Raises:
            StudyStateError: If another version of sweeper stored the study.
        """
        return search_of(self.study, self.storage)

    def unfinished(self) -> set[int]:
        """Return the trials that are waiting, running, interrupted or paused."""
        return {number for number, of in (self.stored or {}).items() if of.state in ("waiting", "running")}


Check = Callable[[Facts], Iterator[Inconsistency]]
"""One check of the facts."""


def search_of(study: StudyRecord, storage: AtomicStorage) -> Search:
    """Open the search of a stored study in Optuna's ``storage``.

    Raises:
        StudyStateError: If there is none, or another version of sweeper stored the study.
    """
    config = stored_config(study)
    return Search.open(
        study.name,
        storage,
        config=config.search,
        space=space_of_study(study),
        evaluation=config.evaluation,
        seed=config.seed,
    )


def runs(database: Database, name: str) -> bool:
    """Return whether a live process runs a study, on this machine or another."""
    return bool(database.workers.alive(name))
