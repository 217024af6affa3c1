"""A study as its examination sees it: everything read once, and what a check may say of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sweeper.paths import Home, StudyPaths
from sweeper.registry import Registry
from sweeper.search.storages.atomic import AtomicStorage
from sweeper.search.storages.stored_trials import StoredTrial, stored_trials
from sweeper.search.study import Search
from sweeper.store import Artifact, Database, StudyRecord, TrialRecord
from sweeper.upkeep.opened import runs, search_of


@dataclass(frozen=True)
class Inconsistency:
    """Something that does not agree.

    Attributes:
        kind: What sort of thing, in one or two words; the same for all of its sort.
        text: What does not agree with what, and where.
        advice: What to do, or what mending does.
        mend: Puts it right and says what it did; None where that would be a guess.
    """

    kind: str
    text: str
    advice: str
    mend: Callable[[], str] | None = None


@dataclass(frozen=True)
class Facts:
    """All that is known of a study.

    Attributes:
        home: Where it is.
        database: The home's.
        study: Its row.
        alive: Whether a living process runs it: what is in motion is not judged then.
        trials: Its trials by number.
        stored: Its trials as the search has them, by number; None where there is no search.
        artifacts: The recorded files by trial.
        storage: Where the search is.
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
        """Take up the study's search, to change it.

        Raises:
            StudyStateError: If its settings are of another version.
        """
        return search_of(self.study, self.storage)

    def unfinished(self) -> set[int]:
        """Return the trials that wait, run, or are interrupted or paused."""
        return {number for number, of in (self.stored or {}).items() if of.state in ("waiting", "running")}


Check = Callable[[Facts], Iterator[Inconsistency]]
"""One question to the facts."""
