"""What people do: orders, actions, feedback, tags, notes and aliases; and what tells that a study has changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns and the tables; what is stored already has no tags and was never changed."""
    op.add_column("sweeper_studies", sa.Column("tags_json", sa.Text(), server_default="[]", nullable=False))
    op.add_column("sweeper_studies", sa.Column("archived_at", sa.DateTime(), nullable=True))
    op.add_column("sweeper_studies", sa.Column("changes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("sweeper_trials", sa.Column("clones", sa.BigInteger(), nullable=True))
    op.add_column("sweeper_trials", sa.Column("initial", sa.BigInteger(), nullable=True))
    op.add_column("sweeper_trials", sa.Column("changed", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index(op.f("ix_sweeper_trials_study_id_changed"), "sweeper_trials", ["study_id", "changed"])
    op.add_column("sweeper_metrics", sa.Column("seconds", sa.Float(), nullable=True))
    op.add_column("sweeper_examples", sa.Column("statistics_json", sa.Text(), nullable=True))
    op.add_column("sweeper_adapters", sa.Column("tags_json", sa.Text(), server_default="[]", nullable=False))
    op.add_column("sweeper_adapters", sa.Column("note", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "sweeper_aliases",
        sa.Column("name", sa.String(length=100), primary_key=True),
        sa.Column("alias", sa.String(length=100), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["name", "version"],
            ["sweeper_adapters.name", "sweeper_adapters.version"],
            name=op.f("fk_sweeper_aliases_name"),
        ),
    )
    op.create_table(
        "sweeper_actions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=50), nullable=False),
        sa.Column("study", sa.String(length=100), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("adapter", sa.String(length=100), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data_json", sa.Text(), nullable=True),
    )
    op.create_index(op.f("ix_sweeper_actions_adapter_id"), "sweeper_actions", ["adapter", "id"])
    op.create_index(op.f("ix_sweeper_actions_study_id"), "sweeper_actions", ["study", "id"])
    op.create_table(
        "sweeper_orders",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("data_json", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("answered_at", sa.DateTime(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
    )
    op.create_index(op.f("ix_sweeper_orders_study_id_state"), "sweeper_orders", ["study_id", "state"])
    op.create_table(
        "sweeper_feedback",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("adapter", sa.String(length=100), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("good", sa.Boolean(), nullable=True),
        sa.Column("correction", sa.Text(), nullable=True),
        sa.Column("settings_json", sa.Text(), nullable=False),
    )
    op.create_index(op.f("ix_sweeper_feedback_adapter_version"), "sweeper_feedback", ["adapter", "version"])
