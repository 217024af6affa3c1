"""The first schema: studies, trials, metrics, evaluations, examples, adapters and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "sweeper_info",
        sa.Column("key", sa.String(length=100), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "sweeper_studies",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("file_text", sa.Text(), nullable=False),
        sa.Column("config_json", sa.Text(), nullable=False),
        sa.Column("space_json", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("sweeper_version", sa.String(length=100), nullable=False),
        sa.Column("packages_json", sa.Text(), nullable=False),
        sa.Column("data_sha256_json", sa.Text(), nullable=False),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("base_model_fingerprint", sa.String(length=200), nullable=False),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "sweeper_events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data_json", sa.Text(), nullable=True),
    )
    op.create_index(op.f("ix_sweeper_events_study_id_id"), "sweeper_events", ["study_id", "id"], unique=False)
    op.create_table(
        "sweeper_trials",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("confirms", sa.BigInteger(), nullable=True),
        sa.Column("restarts", sa.BigInteger(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("parameters_json", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("metrics_json", sa.Text(), nullable=False),
        sa.Column("best_step", sa.BigInteger(), nullable=True),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("total_steps", sa.BigInteger(), nullable=False),
        sa.Column("epochs_trained", sa.Float(), nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("dtype", sa.String(length=100), nullable=True),
        sa.Column("attention", sa.String(length=100), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("train_seconds", sa.Float(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("micro_batch", sa.BigInteger(), nullable=True),
        sa.Column("adapter_bytes", sa.BigInteger(), nullable=True),
        sa.Column("adapter_sha256", sa.String(length=64), nullable=True),
        sa.UniqueConstraint("study_id", "number"),
    )
    op.create_table(
        "sweeper_adapters",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.String(length=20), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("files_json", sa.Text(), nullable=False),
        sa.Column("scores_json", sa.Text(), nullable=False),
        sa.Column("lineage_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number"],
            ["sweeper_trials.study_id", "sweeper_trials.number"],
        ),
        sa.UniqueConstraint("name", "version"),
    )
    op.create_index(
        "uq_sweeper_adapters_production",
        "sweeper_adapters",
        ["name"],
        unique=True,
        sqlite_where=sa.text("stage = 'production'"),
        postgresql_where=sa.text("stage = 'production'"),
    )
    op.create_table(
        "sweeper_evaluations",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("split", sa.String(length=100), nullable=False),
        sa.Column("metric", sa.String(length=100), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("diff_to_base", sa.Float(), nullable=True),
        sa.Column("diff_low", sa.Float(), nullable=True),
        sa.Column("diff_high", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id", "number"],
            ["sweeper_trials.study_id", "sweeper_trials.number"],
        ),
        sa.UniqueConstraint("study_id", "number", "split", "metric"),
    )
    op.create_table(
        "sweeper_examples",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("sweeper_studies.id"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("split", sa.String(length=100), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("generated", sa.Text(), nullable=False),
        sa.Column("scores_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number"],
            ["sweeper_trials.study_id", "sweeper_trials.number"],
        ),
        sa.UniqueConstraint("study_id", "number", "split", "index"),
    )
    op.create_table(
        "sweeper_metrics",
        sa.Column("trial_id", sa.Integer(), sa.ForeignKey("sweeper_trials.id"), primary_key=True),
        sa.Column("step", sa.BigInteger(), primary_key=True),
        sa.Column("name", sa.String(length=100), primary_key=True),
        sa.Column("value", sa.Float(), nullable=True),
        sqlite_with_rowid=False,
    )
