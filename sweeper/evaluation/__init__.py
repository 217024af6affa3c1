"""Evaluation on held-out data: metrics, generated texts, intervals, and the winner; imports no torch by itself."""
