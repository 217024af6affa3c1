"""How two texts differ, as HTML in which all text is escaped."""

from __future__ import annotations

from sweeper.evaluation.compare.text_diff import LEGEND, marked_html, plain_html

__all__ = ["LEGEND", "marked_html", "plain_html"]
