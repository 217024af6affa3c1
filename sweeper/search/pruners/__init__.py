"""Pruners, their rungs, and the explanation of their decisions."""
