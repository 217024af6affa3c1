"""Who runs a study and holds which of its trials, and what every file of a trial was when it was written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the tables; of files written before nothing is known, so nothing of them is checked."""
    op.create_table(
        "sweeper_workers",
        sa.Column("token", sa.String(length=32), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.Float(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("joined_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
    )
    op.create_index(op.f("ix_sweeper_workers_study_id"), "sweeper_workers", ["study_id"])
    op.create_table(
        "sweeper_leases",
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True),
        sa.Column("worker", sa.String(length=32), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=False),
    )
    op.create_index(op.f("ix_sweeper_leases_worker"), "sweeper_leases", ["worker"])
    op.create_table(
        "sweeper_artifacts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("written_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("study_id", "number", "path"),
    )
