"""Checks of a study without training it; imports no torch."""

from sweeper.check.report import CheckReport, Section, check_study

__all__ = ["CheckReport", "Section", "check_study"]
