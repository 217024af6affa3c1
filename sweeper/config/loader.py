"""A study file to a ``StudyConfig``, or every fault of the file at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sweeper.config.choice import ONE, SEVERAL
from sweeper.config.parameters import EXCLUSIVE, PARAMETERS
from sweeper.config.space import ADAPTER, MODEL, Choice, Fixed, FloatRange, IntRange, Range
from sweeper.config.study import StudyConfig
from sweeper.config.trl_fields import OWNED, RENAMED, trl_fields
from sweeper.config.yaml_source import Path_, YamlSource, parse, read_text
from sweeper.errors import Fault, StudyFileError

_RANGE: TypeAdapter[Any] = TypeAdapter(Range)


@dataclass(frozen=True)
class StudyFile:
    """A valid study with the file it came from."""

    config: StudyConfig
    path: Path
    text: str

    @property
    def folder(self) -> Path:
        """Where the relative paths of the study begin."""
        return self.path.absolute().parent


def load_study(path: Path) -> StudyFile:
    """Read, parse and validate a study file.

    Raises:
        StudyFileError: With every fault of the file, each with its line.
    """
    source = parse(str(path), read_text(path))
    return StudyFile(validate(source), path, source.text)


def validate(source: YamlSource) -> StudyConfig:
    """Turn parsed YAML into a study.

    Raises:
        StudyFileError: With every fault, each with its line.
    """
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else f"a {type(source.data).__name__}"
        raise StudyFileError(
            source.name, (Fault("", f"must hold the parts of a study (name, model, data, ...); found {found}", 1),)
        )
    try:
        config = StudyConfig.model_validate(source.data)
        faults: list[Fault] = []
    except ValidationError as error:
        config = None
        faults = [_fault(detail, source) for detail in error.errors(include_url=False)]
    faults += _space_faults(source)
    if faults or config is None:
        raise StudyFileError(source.name, tuple(sorted(faults, key=lambda fault: fault.line or 0)))
    return config


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """Return a hint naming the allowed word nearest to ``word``, or None where none is near."""
    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {matches[0]}?" if matches else None


def _fault(detail: ErrorDetails, source: YamlSource) -> Fault:
    """One pydantic error as a fault: where it is, what was found, what is allowed."""
    path = _written_path(detail["loc"], source.data, keep_last=detail["type"] == "missing")
    kind, context, found = detail["type"], detail.get("ctx", {}), detail["input"]
    hint = None
    if kind == "missing":
        message = "is required"
    elif kind == "extra_forbidden":
        allowed = sorted(_allowed_keys(StudyConfig, detail["loc"][:-1]))
        message = f"unknown key; allowed are {', '.join(allowed)}"
        hint = nearest(str(path[-1]), allowed)
    elif kind in ("literal_error", "union_tag_invalid"):
        allowed = _words(str(context.get("expected", context.get("expected_tags"))))
        value = context.get("tag", found)
        message = f"must be one of {', '.join(allowed)}; found {_short(value)}"
        hint = nearest(str(value), allowed)
    elif kind == "value_error":
        message = str(context["error"])
    elif kind in ("model_type", "model_attributes_type", "dict_type", "union_tag_not_found"):
        message = f"must be a mapping of keys to values; found {_short(found)}"
    else:
        text = detail["msg"].replace("Input should be", "must be")
        message = f"{text[0].lower()}{text[1:]}; found {_short(found)}"
    return Fault(".".join(map(str, path)), message, source.line(path), hint)


def _written_path(location: tuple[str | int, ...], data: Any, *, keep_last: bool) -> Path_:
    """Drop the union tags that pydantic puts into a location: keep what the file itself wrote."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (keep_last and index == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _allowed_keys(annotation: Any, location: tuple[str | int, ...]) -> set[str]:
    """Return the keys that the model at ``location`` (union tags included) takes."""
    models = _models(annotation)
    location = tuple(part for part in location if part not in (ONE, SEVERAL))
    if not location:
        return {key for model in models for key in model.model_fields}
    part, rest = location[0], location[1:]
    tagged = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
    if tagged:
        return _allowed_keys(tagged[0], rest)
    for model in models:
        if part in model.model_fields:
            return _allowed_keys(model.model_fields[str(part)].annotation, rest)
    values = [argument for argument in get_args(annotation) if argument is not str]
    return set().union(*(_allowed_keys(value, rest) for value in values)) if values else set()


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if getattr(annotation, "__origin__", None) in (dict, tuple, list):
        return []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _words(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _space_faults(source: YamlSource) -> Iterator[Fault]:
    """Check each well-formed range against its parameter, also where other parts of the file are at fault."""
    technique = source.data.get("technique")
    kind = technique.get("kind", "sft") if isinstance(technique, dict) else "sft"
    for at, raw in _written_spaces(source.data):
        for name, value in raw.items():
            message, hint = _parameter_fault(name, value, str(kind))
            if message:
                yield Fault(_dotted(at, name), message, source.line((*at, name)), hint)
        for pair in EXCLUSIVE:
            if all(name in raw for name in pair):
                message = f"{' and '.join(pair)} say the same thing; name one of them"
                yield Fault(_dotted(at, pair[1]), message, source.line((*at, pair[1])))
        yield from _condition_faults(at, raw, source)


def _written_spaces(data: dict[str, Any]) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Return every space that the file writes, and where: that of the search, and those of single adapters."""
    places: list[Path_] = [("search", "space")]
    alternatives = _at(data, (ADAPTER, "choice"))
    if isinstance(alternatives, list):
        places += [(ADAPTER, "choice", index, "space") for index in range(len(alternatives))]
    for at in places:
        raw = _at(data, at)
        if isinstance(raw, dict):
            yield at, raw


def _at(data: Any, path: Path_) -> Any:
    """Return what the file wrote at ``path``; None where there is no such place."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        else:
            return None
    return data


def _dotted(*path: Any) -> str:
    return ".".join(str(part) for each in path for part in (each if isinstance(each, tuple) else (each,)))


def _parameter_fault(name: str, value: Any, technique: str) -> tuple[str | None, str | None]:
    """Return what is wrong with a parameter's name or values, and a hint."""
    if name in RENAMED:
        return f"is set by sweeper; use {RENAMED[name]} instead", None
    if name in OWNED:
        return "is set by sweeper for its own bookkeeping and cannot be searched", None
    if name not in PARAMETERS:
        fields = trl_fields(technique)
        if name in fields:
            return None, None
        message = (
            f"unknown parameter; known are {', '.join(PARAMETERS)} and the fields of TRL's {technique.upper()}Config"
        )
        return message, nearest(name, [*PARAMETERS, *fields])
    try:
        range_ = _RANGE.validate_python(value)
    except ValidationError:
        return None, None  # reported with the rest of the file's form
    parameter = PARAMETERS[name]
    if isinstance(range_, FloatRange) and parameter.type == "int":
        return f"must be an integer range; found {range_.low:g} to {range_.high:g}", None
    if isinstance(range_, FloatRange | IntRange) and parameter.type in ("text", "modules"):
        return "must be a value or a choice, not a range", None
    return next((fault for v in _values(range_) if (fault := parameter.fault(v))), None), None


def _values(range_: FloatRange | IntRange | Choice | Fixed) -> tuple[Any, ...]:
    if isinstance(range_, Choice):
        return range_.choice
    return range_.corners()


def _condition_faults(at: Path_, raw: Mapping[str, Any], source: YamlSource) -> Iterator[Fault]:
    """A condition may look at known parameters only, and not at itself."""
    choices = {name for name in (ADAPTER, MODEL) if _at(source.data, (name, "choice")) is not None}
    for name, value in raw.items():
        when = value.get("when") if isinstance(value, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent == name or (parent not in raw and parent not in PARAMETERS and parent not in choices):
                message = (
                    "cannot depend on itself" if parent == name else f"depends on {parent}, which is not in the space"
                )
                path = (*at, name, "when", parent)
                yield Fault(_dotted(path), message, source.line(path), nearest(parent, [p for p in raw if p != name]))
