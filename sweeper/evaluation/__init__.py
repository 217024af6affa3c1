"""How good a model is on held-out data: metrics, generated texts, intervals, and which candidate wins.

Importing this package loads neither torch nor ``evaluate``; the rooms that need them are imported by name.
"""
