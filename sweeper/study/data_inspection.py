"""The data of a stored study as its training sees them; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeper.config.technique import Technique
from sweeper.data.duplicates import Duplicates, find_duplicates
from sweeper.data.files import Row
from sweeper.data.inspection import SplitView, inspect_split
from sweeper.data.splits import SPLITS, read_prepared
from sweeper.data.tokenizer import ModelTokenizer
from sweeper.errors import DataError, StudyStateError
from sweeper.files.atomic import read_json
from sweeper.paths import Home
from sweeper.store import Database, stored_config


@dataclass(frozen=True)
class StudyData:
    """Where the data of a study are, and what trains on them.

    Attributes:
        technique: What trains.
        models: Folders of the base models by name; each has a tokenizer of its own.
        splits: Files of the prepared rows by split.
    """

    name: str
    technique: Technique
    models: Mapping[str, Path]
    splits: Mapping[str, Path]


@dataclass(frozen=True)
class Inspection:
    """A study's data as training sees them.

    Attributes:
        rows: The prepared rows by split.
        splits: What each looks like.
        duplicates: Rows that say the same.
    """

    data: StudyData
    model: str
    rows: Mapping[str, list[Row]] = field(repr=False)
    splits: Mapping[str, SplitView]
    duplicates: Duplicates

    @property
    def max_length(self) -> int:
        """Where rows are cut, in tokens."""
        return self.data.technique.max_length


def study_data(home: Home, database: Database, name: str) -> StudyData:
    """Find the data of a stored study.

    Raises:
        StudyStateError: If there is no such study, or it is of another version of sweeper.
        DataError: If its prepared data are not in the home.
    """
    record, paths = database.studies.get(name), home.study(name)
    technique = stored_config(record).technique
    splits = {split: paths.data / f"{split}.jsonl" for split in SPLITS}
    missing = [str(path) for path in (paths.resolved, *splits.values()) if not path.is_file()]
    if missing:
        raise DataError(
            f"study {name!r} has no prepared data in this home: {missing[0]} is missing; a study prepares them when "
            "it begins, so run it here, or restore the file from a backup"
        )
    try:
        models = {model: Path(found["folder"]) for model, found in read_json(paths.resolved)["models"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyStateError(f"{paths.resolved} is damaged, or of another version of sweeper") from error
    return StudyData(name, technique, models, splits)


def inspect_study(data: StudyData, model: str | None = None) -> Inspection:
    """Look at the data of a study through the tokenizer of one of its models, the first if none is named.

    Raises:
        DataError: If a file is broken, the study has no such model, or a chat template refuses a row.
        ModelError: If the tokenizer is gone or broken.
    """
    name = next(iter(data.models)) if model is None else model
    if name not in data.models:
        raise DataError(f"study {data.name!r} has no model {name!r}; it has {', '.join(data.models)}")
    tokenizer = ModelTokenizer.load(data.models[name])
    rows = {split: read_prepared(path) for split, path in data.splits.items()}
    views = {split: inspect_split(of, tokenizer, data.technique) for split, of in rows.items()}
    return Inspection(data, name, rows, views, find_duplicates(rows))
