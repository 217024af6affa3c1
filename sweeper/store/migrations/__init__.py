"""Alembic migrations of sweeper's tables.

A new one is a file in ``versions`` whose ``down_revision`` is the former ``HEAD``; then ``HEAD`` moves here.
"""

from __future__ import annotations

HEAD = "0005"
"""The newest revision, so that opening a current database needs no Alembic; a test holds it to ``versions``."""

VERSION_TABLE = "sweeper_alembic_version"
"""Where the revision of our tables is kept; ``alembic_version`` is Optuna's."""
