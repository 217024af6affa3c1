"""Optuna storages: opening the right one, atomic writes, and fast reads of stored trials."""
