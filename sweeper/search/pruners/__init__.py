"""Pruners, their rungs, and the decisions they record."""
