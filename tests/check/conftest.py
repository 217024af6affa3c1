"""Folders with a tiny model, data and a study, checked through the real command line."""

from check_fixtures import _own_machine, folder, model_source, sweeper, write_study  # noqa: F401
