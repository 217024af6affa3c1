"""Which version was in production before, from what is recorded of who did what."""

from __future__ import annotations

from collections.abc import Sequence

from sweeper.store import Action

PROMOTE = "promote"
ROLL_BACK = "rollback"


def were_in_production(actions: Sequence[Action]) -> tuple[int, ...]:
    """Return every version that ever was in production, the one that came there last first.

    Args:
        actions: What was done to an adapter, the latest first.
    """
    return tuple(dict.fromkeys(a.version for a in actions if a.kind in (PROMOTE, ROLL_BACK) and a.version is not None))


def before(actions: Sequence[Action], production: int | None) -> int | None:
    """Return the version that was in production before the present one; with none there, the last that was.

    What the present one replaced when it was promoted, so that rolling back twice goes back twice.
    """
    if production is None:
        return next(iter(were_in_production(actions)), None)
    promoted = next((a for a in actions if a.kind == PROMOTE and a.version == production), None)
    replaced = (promoted.data or {}).get("replaced") if promoted is not None else None
    return replaced if isinstance(replaced, int) else None
