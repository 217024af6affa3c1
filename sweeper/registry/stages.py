"""The stages of an adapter version: the moves between them, and the history of production."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeper.errors import RegistryError
from sweeper.store import Action, Stage

PROMOTE = "promote"
ROLL_BACK = "rollback"

MOVES: dict[Stage, tuple[Stage, ...]] = {
    Stage.CANDIDATE: (Stage.STAGING, Stage.ARCHIVED),
    Stage.STAGING: (Stage.PRODUCTION, Stage.CANDIDATE, Stage.ARCHIVED),
    Stage.PRODUCTION: (Stage.ARCHIVED,),
    Stage.ARCHIVED: (Stage.PRODUCTION, Stage.CANDIDATE, Stage.DELETED),
    Stage.DELETED: (),
}
"""The stages a version may move to from each stage; into production only through the gate (see ``gate``)."""


def check_move(subject: str, old: Stage, new: Stage) -> None:
    """Refuse a move that is not in the table.

    Raises:
        RegistryError: Naming the allowed moves.
    """
    if new not in MOVES[old]:
        allowed = ", ".join(MOVES[old])
        raise RegistryError(f"{subject} is {old} and cannot become {new}; from {old} it can become: {allowed}")


def were_in_production(actions: Sequence[Action]) -> tuple[int, ...]:
    """Return every version that was ever in production, the last one first; ``actions`` start with the latest."""
    return tuple(dict.fromkeys(version for action in actions for version in _in_production(action)))


def _in_production(action: Action) -> Iterator[int]:
    """Yield the versions that an action shows to have been in production, the later first.

    Leaving counts as well: a version may have been promoted before anything was recorded.
    """
    data = action.data or {}
    came = action.kind in (PROMOTE, ROLL_BACK)
    if action.version is not None and (came or data.get("from") == Stage.PRODUCTION):
        yield action.version
    if came and isinstance(data.get("replaced"), int):
        yield data["replaced"]


def before(actions: Sequence[Action], production: int | None) -> int | None:
    """Return the version that was in production before the present one; without one there, the last that was.

    It is the one that the present version replaced when promoted, so that rolling back twice goes back twice.
    """
    if production is None:
        return next(iter(were_in_production(actions)), None)
    promoted = _promotion(actions, production)
    replaced = (promoted.data or {}).get("replaced") if promoted is not None else None
    return replaced if isinstance(replaced, int) else None


def was_forced(actions: Sequence[Action], version: int) -> bool:
    """Return whether a version's last promotion overruled the gate: a rollback to it overrules it again."""
    promoted = _promotion(actions, version)
    return promoted is not None and promoted.forced


def _promotion(actions: Sequence[Action], version: int) -> Action | None:
    return next((action for action in actions if action.kind == PROMOTE and action.version == version), None)
