"""A study file to a ``StudyConfig``, or every fault of the file at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sweeper.config.adapter import Adapter, AnyAdapter, QLoRA
from sweeper.config.parameters import EXCLUSIVE, PARAMETERS
from sweeper.config.space import Choice, Fixed, FloatRange, IntRange, Range
from sweeper.config.study import StudyConfig
from sweeper.config.trl_fields import OWNED, RENAMED, trl_fields
from sweeper.config.variants import foreign_fault, option_fault
from sweeper.config.yaml_source import Path_, YamlSource, parse, read_text
from sweeper.errors import Fault, StudyFileError

_RANGE: TypeAdapter[Any] = TypeAdapter(Range)
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Adapter)


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
    search = source.data.get("search")
    raw = search.get("space") if isinstance(search, dict) else None
    if not isinstance(raw, dict):
        return
    technique = source.data.get("technique")
    kind = technique.get("kind", "sft") if isinstance(technique, dict) else "sft"
    at = ("search", "space")
    adapter = _adapter(source.data.get("adapter", QLoRA()))
    for name, value in raw.items():
        message, hint = _parameter_fault(name, value, str(kind), adapter)
        if message:
            yield Fault(f"search.space.{name}", message, source.line((*at, name)), hint)
    for pair in EXCLUSIVE:
        if all(name in raw for name in pair):
            message = f"{' and '.join(pair)} say the same thing; name one of them"
            yield Fault(f"search.space.{pair[1]}", message, source.line((*at, pair[1])))
    yield from _condition_faults(raw, source)


def _adapter(raw: Any) -> AnyAdapter | None:
    """Return the study's adapter; None where it is at fault itself, which is reported with the file's form."""
    try:
        return _ADAPTER.validate_python(raw)  # type: ignore[no-any-return]
    except ValidationError:
        return None


def _parameter_fault(
    name: str, value: Any, technique: str, adapter: AnyAdapter | None
) -> tuple[str | None, str | None]:
    """Return what is wrong with a parameter's name or values, and a hint."""
    foreign = foreign_fault(adapter, name) if adapter is not None else None
    if foreign is not None:
        return foreign, None
    if name in RENAMED:
        return f"is set by sweeper; use {RENAMED[name]} instead", None
    if name in OWNED:
        return "is set by sweeper for its own bookkeeping and cannot be searched", None
    options = adapter.options() if adapter is not None else frozenset()
    if name not in PARAMETERS and name not in options:
        return _unknown_parameter(name, technique, options)
    try:
        range_ = _RANGE.validate_python(value)
    except ValidationError:
        return None, None  # reported with the rest of the file's form
    if adapter is not None and name in options:
        return option_fault(adapter, name, range_), None
    parameter = PARAMETERS[name]
    if isinstance(range_, FloatRange) and parameter.type == "int":
        return f"must be an integer range; found {range_.low:g} to {range_.high:g}", None
    if isinstance(range_, FloatRange | IntRange) and parameter.type in ("text", "modules"):
        return "must be a value or a choice, not a range", None
    return next((fault for v in _values(range_) if (fault := parameter.fault(v))), None), None


def _unknown_parameter(name: str, technique: str, options: frozenset[str]) -> tuple[str | None, str | None]:
    """Return what is wrong with a name that is neither a parameter nor an option of the adapter, and a hint."""
    fields = trl_fields(technique)
    if name in fields:
        return None, None
    known = ", ".join([*PARAMETERS, *sorted(options)])
    message = f"unknown parameter; known are {known} and the fields of TRL's {technique.upper()}Config"
    return message, nearest(name, [*PARAMETERS, *options, *fields])


def _values(range_: FloatRange | IntRange | Choice | Fixed) -> tuple[Any, ...]:
    if isinstance(range_, Choice):
        return range_.choice
    return range_.corners()


def _condition_faults(raw: Mapping[str, Any], source: YamlSource) -> Iterator[Fault]:
    """A condition may look at known parameters only, and not at itself."""
    for name, value in raw.items():
        when = value.get("when") if isinstance(value, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent == name or (parent not in raw and parent not in PARAMETERS):
                message = (
                    "cannot depend on itself" if parent == name else f"depends on {parent}, which is not in the space"
                )
                path = ("search", "space", name, "when", parent)
                yield Fault(".".join(path), message, source.line(path), nearest(parent, [p for p in raw if p != name]))
