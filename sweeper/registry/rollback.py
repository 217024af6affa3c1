"""Which versions were in production, in which order and how they came there, from what is recorded of who did what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeper.store import Action, Stage

PROMOTE = "promote"
ROLL_BACK = "rollback"


def were_in_production(actions: Sequence[Action]) -> tuple[int, ...]:
    """Return every version that ever was in production, the one that was there last first.

    Args:
        actions: What was done to an adapter, the latest first.
    """
    return tuple(dict.fromkeys(version for action in actions for version in _in_production(action)))


def _in_production(action: Action) -> Iterator[int]:
    """Yield the versions that an action shows to have been in production, the later first.

    What left it counts as well: a version may have come there before anything was recorded.
    """
    data = action.data or {}
    came = action.kind in (PROMOTE, ROLL_BACK)
    if action.version is not None and (came or data.get("from") == Stage.PRODUCTION):
        yield action.version
    if came and isinstance(data.get("replaced"), int):
        yield data["replaced"]


def before(actions: Sequence[Action], production: int | None) -> int | None:
    """Return the version that was in production before the present one; with none there, the last that was.

    What the present one replaced when it was promoted, so that rolling back twice goes back twice.
    """
    if production is None:
        return next(iter(were_in_production(actions)), None)
    promoted = _promotion(actions, production)
    replaced = (promoted.data or {}).get("replaced") if promoted is not None else None
    return replaced if isinstance(replaced, int) else None


def was_forced(actions: Sequence[Action], version: int) -> bool:
    """Tell whether a version's last promotion overruled the gate: a rollback to it overrules it once more."""
    promoted = _promotion(actions, version)
    return promoted is not None and promoted.forced


def _promotion(actions: Sequence[Action], version: int) -> Action | None:
    return next((action for action in actions if action.kind == PROMOTE and action.version == version), None)
