"""Samplers: Optuna's own, built from the study, and those it lacks."""
