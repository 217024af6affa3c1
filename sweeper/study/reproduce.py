"""A trial once more: the study file that runs its configuration alone, from what the home keeps of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sweeper.config.pipeline import STARTED_FROM
from sweeper.config.single import single_study
from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialSpec
from sweeper.data.splits import SPLITS
from sweeper.errors import StudyStateError
from sweeper.models.catalogue import lookup
from sweeper.paths import Home
from sweeper.store import Database


def study_file_of(home: Home, database: Database, study: str, number: int) -> str:
    """Return the text of a study file that runs the configuration of a trial, on the rows that it was run on.

    Raises:
        StudyStateError: If study or trial do not exist, if their files are gone, or if they are of another version of
            sweeper.
    """
    record, trial = database.studies.get(study), database.trials.get(study, number)
    paths = home.study(study)
    rows = {split: paths.data / f"{split}.jsonl" for split in SPLITS}
    missing = next((path for path in (*rows.values(), paths.trial(number).spec) if not path.is_file()), None)
    if missing is not None:
        raise StudyStateError(f"{missing} is gone, so trial {number} of {study!r} cannot be written as a study file")
    try:
        config = StudyConfig.model_validate(record.config)
        spec = TrialSpec.model_validate_json(paths.trial(number).spec.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise StudyStateError(
            f"study {study!r} was run by another version of sweeper, whose settings differ"
        ) from error
    sources = spec.reward_sources
    return single_study(
        config,
        number,
        trial.parameters,
        rows=rows,
        model_folder=spec.model_folder if _is_relative(spec.model.name, spec.model_folder) else None,
        functions_in=sources.study_folder if sources else None,
        initial=spec.initial_trial,
    )


def _is_relative(name: str, folder: Path) -> bool:
    """Tell whether a model's name is a path that only the folder of the first study file gave a meaning to."""
    if lookup(name) is not None or name.startswith((STARTED_FROM, "/", "~")):
        return False
    return folder.as_posix().endswith("/" + name.removeprefix("./").removeprefix("../")) or name.startswith(".")
