"""The stages of an adapter version, and the moves between them."""

from __future__ import annotations

from sweeper.errors import RegistryError
from sweeper.store import Stage

MOVES: dict[Stage, tuple[Stage, ...]] = {
    Stage.CANDIDATE: (Stage.STAGING, Stage.ARCHIVED),
    Stage.STAGING: (Stage.PRODUCTION, Stage.CANDIDATE, Stage.ARCHIVED),
    Stage.PRODUCTION: (Stage.ARCHIVED,),
    Stage.ARCHIVED: (Stage.PRODUCTION, Stage.CANDIDATE, Stage.DELETED),
    Stage.DELETED: (),
}
"""From each stage, the stages a version may move to; into production only through the gate (see ``gate``)."""


def check_move(subject: str, old: Stage, new: Stage) -> None:
    """Refuse a move that the table does not have.

    Raises:
        RegistryError: Naming the moves that are allowed.
    """
    if new not in MOVES[old]:
        allowed = ", ".join(MOVES[old])
        raise RegistryError(f"{subject} is {old} and cannot become {new}; from {old} it can become: {allowed}")
