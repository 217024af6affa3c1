"""Retention of adapters: the study's keep policy, and what the study still needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeper.config.storage import size_text
from sweeper.config.study import StudyConfig
from sweeper.files.atomic import discard
from sweeper.paths import StudyPaths
from sweeper.search.study import Search
from sweeper.store import Artifact, Database, OrderKind


@dataclass(frozen=True)
class Surplus:
    """An adapter that is not to be kept; ``why`` says by which rule."""

    number: int
    bytes: int
    why: str


@dataclass(frozen=True)
class Collected:
    """What was removed, and what is wrong with the quota in words, if it cannot be held."""

    removed: tuple[Surplus, ...]
    over_quota: str | None = None

    def __str__(self) -> str:
        size = size_text(sum(each.bytes for each in self.removed))
        return f"{len(self.removed)} adapter(s) removed by the keep policy ({size})"


def collect(database: Database, paths: StudyPaths, search: Search, config: StudyConfig, *, ended: bool) -> Collected:
    """Remove what a study is not to keep, and return what that was.

    The database forgets an adapter before its folder goes: a crash leaves a folder that nobody counts on. ``ended``
    tells that nothing is left to run and the best were scored.
    """
    artifacts = database.artifacts.all(config.name)
    adapters = _sizes(artifacts, "adapter/")  # few: a glance that spares reading every trial
    if config.keep.quota is None and len(adapters) <= config.evaluation.candidates:
        return Collected(())
    surplus, over = judge(database, search, config, adapters, _sum(artifacts, "frozen/"), ended=ended)
    removed = []
    if surplus:
        with database.study_lock(config.name):  # who is best only ever gets worse, but somebody may begin from it
            pinned = _pinned(database, search, config, set())
            for each in surplus:
                if each.number not in pinned:
                    database.artifacts.forget(config.name, each.number)
                    discard(paths.trial(each.number).adapter)
                    removed.append(each)
    return Collected(tuple(removed), over)


def judge(
    database: Database,
    search: Search,
    config: StudyConfig,
    adapters: Mapping[int, int],
    frozen_bytes: int,
    *,
    ended: bool,
) -> tuple[list[Surplus], str | None]:
    """Return which adapters are not to be kept, and why the quota cannot be held, if it cannot.

    ``adapters`` are bytes by trial; ``ended`` tells that nothing is left to run and the best were scored.
    """
    keep, needed = config.keep, _needed(database, search, config, ended=ended)
    wanted = _wanted(search, config)
    surplus = [
        Surplus(number, size, f"not among the adapters that are kept ({keep})")
        for number, size in adapters.items()
        if number not in needed and number not in wanted
    ]
    if keep.quota is None:
        return surplus, None
    left = dict(adapters)
    for each in surplus:
        del left[each.number]
    place = {number: index for index, number in enumerate(wanted)}
    for number in sorted(left.keys() - needed, key=lambda number: place.get(number, len(place)), reverse=True):
        if sum(left.values()) + frozen_bytes <= keep.quota:
            break
        surplus.append(Surplus(number, left.pop(number), f"over the quota ({keep})"))
    total = sum(left.values()) + frozen_bytes
    return surplus, _over(config, total, len(left)) if total > keep.quota else None


def _needed(database: Database, search: Search, config: StudyConfig, *, ended: bool) -> set[int]:
    """Return the trials whose adapters are registered, may yet be scored, or are where another trial begins."""
    candidates = search.contenders(config.evaluation.candidates, ended=ended)
    return _pinned(database, search, config, {*candidates, *search.ordered_complete()})


def _pinned(database: Database, search: Search, config: StudyConfig, scored: set[int]) -> set[int]:
    """Return trials that are scored, those that are registered, and where they and unfinished trials begin."""
    registered = {record.number for record in database.adapters.all() if record.study == config.name}
    orders = database.orders.waiting(config.name)
    to_clone = {order.number for order in orders if order.kind is OrderKind.CLONE and order.number is not None}
    pinned = {*registered, *to_clone, *scored}
    initials = search.initials()
    begun_from = [initials[number] for number in pinned | search.unfinished() if number in initials]
    while begun_from:  # a clone of a clone is made again from both
        number = begun_from.pop()
        pinned.add(number)
        begun_from += [initials[number]] if number in initials else []
    return pinned


def _wanted(search: Search, config: StudyConfig) -> list[int]:
    """Return the trials whose adapters the policy keeps, best first."""
    if config.evaluation.objectives and config.keep.best != "all":
        return [point.number for point in search.front()]
    if config.keep.best == "all":
        first = [found.best_number(config.evaluation.direction) for found in search.best(None)]
        return list(dict.fromkeys([*first, *search.complete()]))
    return [found.best_number(config.evaluation.direction) for found in search.best(config.keep.best)]


def _over(config: StudyConfig, total: int, adapters: int) -> str:
    assert config.keep.quota is not None
    return (
        f"study {config.name!r} holds {size_text(total)}, above its quota of {size_text(config.keep.quota)}: the "
        f"{adapters} adapters that its final scoring needs and the trials that wait do not fit; it goes on all the same"
    )


def _sizes(artifacts: Iterable[Artifact], prefix: str) -> dict[int, int]:
    sizes: dict[int, int] = defaultdict(int)
    for each in artifacts:
        if each.path.startswith(prefix):
            sizes[each.number] += each.bytes
    return dict(sizes)


def _sum(artifacts: Iterable[Artifact], prefix: str) -> int:
    return sum(_sizes(artifacts, prefix).values())
