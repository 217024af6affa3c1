"""Pruning decisions, recorded when they are taken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table; trials of before say by NULL that nothing is known of the decisions on them."""
    op.add_column("sweeper_trials", sa.Column("decisions_recorded", sa.Boolean(), nullable=True))
    op.create_table(
        "sweeper_decisions",
        sa.Column("trial_id", sa.Integer(), sa.ForeignKey("sweeper_trials.id"), primary_key=True),
        sa.Column("progress", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("pruner", sa.String(length=100), nullable=False),
        sa.Column("rung", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("peers", sa.BigInteger(), nullable=False),
        sa.Column("continuing", sa.BigInteger(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("pruned", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("compared_json", sa.Text(), nullable=False),
    )
