"""Studies with several base models: each trial has its own, and evaluations say of which base they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; what is stored already has one base, whose name is empty."""
    op.add_column("sweeper_trials", sa.Column("total_parameters", sa.BigInteger(), nullable=True))
    op.add_column("sweeper_trials", sa.Column("base_model", sa.Text(), nullable=True))
    op.add_column("sweeper_trials", sa.Column("base_model_fingerprint", sa.String(length=200), nullable=True))
    op.add_column("sweeper_evaluations", sa.Column("base", sa.Text(), server_default="", nullable=False))
    op.add_column("sweeper_examples", sa.Column("base", sa.Text(), server_default="", nullable=False))
