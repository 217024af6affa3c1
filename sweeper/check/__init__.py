"""Checks of a study without training it; imports no torch."""
