"""Loading of study files: a ``StudyConfig``, or every fault of the file at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sweeper.config.adapter import Adapter, AnyAdapter, QLoRA
from sweeper.config.choice import ONE, SEVERAL, foreign_fault, interval_fault, option_fault
from sweeper.config.parameters import EXCLUSIVE, PARAMETERS
from sweeper.config.pipeline import STAGES, connection_faults, is_pipeline, pipeline_faults, stage_source
from sweeper.config.space import ADAPTER, MODEL, as_range, listed
from sweeper.config.storage import PostgresStorage
from sweeper.config.study import StudyConfig
from sweeper.config.technique import AnyTechnique, technique_class
from sweeper.config.trl_fields import OWNED, RENAMED, trl_fields
from sweeper.config.yaml_source import Path_, YamlSource, parse, read_text
from sweeper.errors import Fault, StudyFileError
from sweeper.redact import redact

_ADAPTER: TypeAdapter[Any] = TypeAdapter(Adapter)


@dataclass(frozen=True)
class StudyFile:
    """A valid study with the file it came from.

    Attributes:
        text: The file's text, but for a password of its database.
        within: The path of the study in the file, if it is a stage of a pipeline.
    """

    config: StudyConfig
    path: Path
    text: str
    within: Path_ = ()

    @property
    def folder(self) -> Path:
        """The folder that the study's relative paths start from."""
        return self.path.absolute().parent


@dataclass(frozen=True)
class PipelineFile:
    """A valid pipeline: the study of each stage, in the order in which they run."""

    name: str
    stages: Mapping[str, StudyFile]
    path: Path
    text: str


def load_study(path: Path) -> StudyFile | PipelineFile:
    """Read, parse and validate a study file; StudyFileError names every fault with its line."""
    return study_file(parse(str(path), read_text(path)), path)


def study_file(source: YamlSource, path: Path) -> StudyFile | PipelineFile:
    """Validate a parsed study file; StudyFileError names every fault with its line."""
    if not is_pipeline(source.data):
        config = validate(source)
        return StudyFile(config, path, _without_password(source, config))
    faults = list(pipeline_faults(source))
    stages = {}
    for stage in STAGES if not faults else ():
        try:
            config = validate(stage_source(source, stage))
            stages[stage] = StudyFile(config, path, _without_password(source, config), ("stages", stage))
        except StudyFileError as error:
            faults += [_within_stage(fault, stage, source) for fault in error.faults]
    if not faults:
        faults += connection_faults({stage: study.config for stage, study in stages.items()}, source)
    if faults:
        raise StudyFileError(source.name, tuple(sorted(dict.fromkeys(faults), key=lambda fault: fault.line or 0)))
    return PipelineFile(source.data["name"], stages, path, next(iter(stages.values())).text)


def _without_password(source: YamlSource, config: StudyConfig) -> str:
    """Return the text of a study file with its database's password as ``***``.

    Raises:
        StudyFileError: If the password is escaped and cannot be found in the text.
    """
    if not isinstance(config.storage, PostgresStorage):
        return source.text
    server = config.storage.url
    text = server.hide(source.text)
    if server.has_password and _at(parse(source.name, text).data, ("storage",)) == source.data["storage"]:
        message = "holds a password with YAML escapes: write ${PGPASSWORD} in its place, or the URL without quotes"
        raise StudyFileError(source.name, (source.fault(("storage",), message),))
    return text


def _within_stage(fault: Fault, stage: str, source: YamlSource) -> Fault:
    """Name the field as in the file: below its stage, unless the stages share it."""
    part = fault.field.partition(".")[0]
    shared = part in source.data and part not in source.data["stages"][stage]
    return fault if shared else replace(fault, field=f"stages.{stage}.{fault.field}".rstrip("."))


def validate(source: YamlSource) -> StudyConfig:
    """Turn parsed YAML into a study; StudyFileError names every fault with its line."""
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else f"a {type(source.data).__name__}"
        message = f"must hold the parts of a study (name, model, data, ...); found {found}"
        raise StudyFileError(source.name, (Fault("", message, 1),))
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
    """Return a hint with the allowed word nearest to ``word``, if one is near."""
    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {matches[0]}?" if matches else None


def _fault(detail: ErrorDetails, source: YamlSource) -> Fault:
    """Convert a pydantic error to a fault: its place, the value found, the values allowed."""
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
    return source.fault(path, message, hint)


def _written_path(location: tuple[str | int, ...], data: Any, *, keep_last: bool) -> Path_:
    """Drop the union tags that pydantic adds to a location."""
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
    """Return the allowed keys of the model at ``location`` (union tags included)."""
    models = _models(annotation)
    if not location:
        return {key for model in models for key in model.model_fields}
    part, rest = location[0], location[1:]
    if part in (ONE, SEVERAL):
        tagged = [m for m in models if ("choice" in m.model_fields) == (part == SEVERAL)]
        return set().union(*(_allowed_keys(model, rest) for model in tagged))
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
    text = redact(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _space_faults(source: YamlSource) -> Iterator[Fault]:
    """Check each well-formed range against its parameter, even if other parts of the file have faults."""
    technique = technique_class(source.data.get("technique", "sft"))
    for at, raw, adapters in _written_spaces(source.data):
        for name, value in raw.items():
            message, hint = _parameter_fault(name, value, technique, adapters)
            if message:
                yield source.fault((*at, name), message, hint)
        for pair in EXCLUSIVE:
            if all(name in raw for name in pair):
                yield source.fault((*at, pair[1]), f"{' and '.join(pair)} set the same thing; name only one of them")
        yield from _condition_faults(at, raw, source)


def _written_spaces(data: dict[str, Any]) -> Iterator[tuple[Path_, dict[str, Any], list[AnyAdapter]]]:
    """Yield every space in the file (the search's, and single adapters'), with its path and its adapters."""
    alternatives = _at(data, (ADAPTER, "choice"))
    if isinstance(alternatives, list):
        each = [_adapter(raw) for raw in alternatives]
        places: list[tuple[Path_, list[AnyAdapter | None]]] = [(("search", "space"), each)]
        places += [((ADAPTER, "choice", index, "space"), [one]) for index, one in enumerate(each)]
    else:
        places = [(("search", "space"), [_adapter(data.get(ADAPTER, QLoRA()))])]
    for at, adapters in places:
        raw = _at(data, at)
        if isinstance(raw, dict):
            yield at, raw, [adapter for adapter in adapters if adapter is not None]


def _at(data: Any, path: Path_) -> Any:
    """Return the file's value at ``path``, or None."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        else:
            return None
    return data


def _adapter(raw: Any) -> AnyAdapter | None:
    """Return an adapter of the file; None if it is invalid, which is reported with the file's form."""
    own = {name: value for name, value in raw.items() if name != "space"} if isinstance(raw, dict) else raw
    try:
        return _ADAPTER.validate_python(own)  # type: ignore[no-any-return]
    except ValidationError:
        return None


def _parameter_fault(
    name: str, value: Any, technique: type[AnyTechnique], adapters: Sequence[AnyAdapter]
) -> tuple[str | None, str | None]:
    """Return the fault of a parameter's name or values, and a hint; it needs to fit one adapter only."""
    foreign = [foreign_fault(adapter, name) for adapter in adapters]
    if foreign and None not in foreign:
        return foreign[0], None
    if name in RENAMED:
        return f"is set by sweeper; use {RENAMED[name]} instead", None
    if name in OWNED:
        return "is set by sweeper and cannot be searched", None
    having = [adapter for adapter in adapters if name in adapter.options()]
    parameter = PARAMETERS.get(name) or technique.parameters.get(name)
    if parameter is None and not having:
        options = frozenset[str]().union(*(adapter.options() for adapter in adapters))
        return _unknown_parameter(name, technique, options)
    try:
        range_ = as_range(value)
    except ValidationError:
        return None, None  # reported with the rest of the file's form
    if having:
        return next(filter(None, (option_fault(adapter, name, range_) for adapter in having)), None), None
    assert parameter is not None
    types: set[Any] = {"int": {int}, "text": set(), "modules": set()}.get(parameter.type, {int, float})
    faults = (fault for value in listed(range_) if (fault := parameter.fault(value)))
    return interval_fault(range_, types) or next(faults, None), None


def _unknown_parameter(
    name: str, technique: type[AnyTechnique], options: frozenset[str]
) -> tuple[str | None, str | None]:
    """Return the fault of a name that is neither a parameter nor an option of the adapter, and a hint."""
    fields = trl_fields(technique)
    if name in fields:
        return None, None
    known = ", ".join([*PARAMETERS, *technique.parameters, *sorted(options)])
    config = technique.trl_configs[-1].partition(":")[2]
    message = f"unknown parameter; known are {known} and the fields of TRL's {config}"
    return message, nearest(name, [*PARAMETERS, *options, *fields])


def _condition_faults(at: Path_, raw: Mapping[str, Any], source: YamlSource) -> Iterator[Fault]:
    """Yield conditions on unknown parameters, or on the parameter itself."""
    choices = {name for name in (ADAPTER, MODEL) if _at(source.data, (name, "choice")) is not None}
    for name, value in raw.items():
        when = value.get("when") if isinstance(value, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent == name or (parent not in raw and parent not in PARAMETERS and parent not in choices):
                unknown = f"depends on {parent}, which is not in the space"
                message = "cannot depend on itself" if parent == name else unknown
                yield source.fault((*at, name, "when", parent), message, nearest(parent, [p for p in raw if p != name]))
