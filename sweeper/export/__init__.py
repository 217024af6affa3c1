"""Exports of a registered adapter: training files of other tools, the adapter itself, merged weights."""

from __future__ import annotations

from sweeper.export.source import BaseModelSource, Exported, ExportSource, Score, SplitSource
from sweeper.export.writer import FORMATS, export

__all__ = ["FORMATS", "BaseModelSource", "ExportSource", "Exported", "Score", "SplitSource", "export"]
