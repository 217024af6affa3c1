"""Everything about a study that can be known without training; imports no torch."""

from sweeper.check.report import CheckReport, Section, check_study

__all__ = ["CheckReport", "Section", "check_study"]
