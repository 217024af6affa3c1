"""The stored configuration of a study, which another version of sweeper may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sweeper.config.study import StudyConfig
from sweeper.errors import StudyStateError
from sweeper.store.records import StudyRecord


def stored_config(study: StudyRecord) -> StudyConfig:
    """Return the configuration of a stored study.

    Raises:
        StudyStateError: If another version of sweeper stored it, whose settings differ.
    """
    return read_config(study.name, study.config)


def read_config(name: str, data: Mapping[str, Any]) -> StudyConfig:
    """Return the configuration that was stored for a study as ``data``; see ``stored_config``."""
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        raise StudyStateError(f"study {name!r} was stored by another version of sweeper; run it again") from error
