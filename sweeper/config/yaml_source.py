"""YAML text to plain data with the line of every value.

Stricter than YAML itself, because a study file may come from an untrusted source: no tags, anchors or duplicate keys,
bounded size and depth. Scalars follow YAML 1.2, so that ``1e-4`` is a number and ``no`` is a word.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import Fault, StudyFileError

MAX_BYTES = 1_000_000
MAX_DEPTH = 24
_TOO_LARGE = f"is larger than {MAX_BYTES // 1000} kB; a study file holds settings, not data"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
MAX_NODES = 50_000

_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}

Path_ = tuple[str | int, ...]


@dataclass
class YamlSource:
    """Plain data with the line of every value, from 1."""

    name: str
    text: str
    data: Any = None
    lines: dict[Path_, int] = field(default_factory=dict)

    def fault(self, path: Path_, message: str, hint: str | None = None) -> Fault:
        """Return a fault at a path, with its line."""
        return Fault(dotted(path), message, self.line(path), hint)

    def line(self, path: Path_) -> int | None:
        """Return the line of the deepest known part of ``path``."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_text(path: Path) -> str:
    """Return the text of a study file.

    Raises:
        StudyFileError: If the file does not exist, is not UTF-8 text, or is too large.
    """

    def refuse(message: str, hint: str | None = None) -> StudyFileError:
        return StudyFileError(str(path), (Fault("", message, hint=hint),))

    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise refuse("is a folder, not a study file" if stat.S_ISDIR(mode) else "is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)  # bounded even if the file grows or reports a wrong size
        if len(raw) > MAX_BYTES:
            raise refuse(_TOO_LARGE)
    except FileNotFoundError:
        raise refuse("no such file", "`sweeper init` writes a study file for your data") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL byte or half a character in the name
        raise refuse(f"cannot be the name of a file: {error}") from None
    if b"\0" in raw:
        raise refuse("holds NUL bytes or is UTF-16; save it as UTF-8 text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StudyFileError(str(path), (Fault("", "is not UTF-8 text", line=line),)) from None


def parse(name: str, text: str) -> YamlSource:
    """Parse YAML into data and lines.

    Raises:
        StudyFileError: If the text is not YAML, or uses features that study files may not (all such faults at once).
    """
    source = YamlSource(name, text)
    try:
        faults = _forbidden(text)
        if not faults:
            node = yaml.compose(text, Loader=yaml.CSafeLoader)
            if node is not None:
                source.data = _build(node, (), source, faults)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}"
        if error.problem == "exceeded maximum nesting depth":  # the parser's own limit, since PyYAML 6.0.4
            message = _TOO_DEEP
        faults = [Fault("", message, line=mark.line + 1 if mark else None)]
    except yaml.YAMLError as error:
        faults = [Fault("", f"is not valid YAML: {error}")]
    if faults:
        raise StudyFileError(name, tuple(faults))
    return source


def _forbidden(text: str) -> list[Fault]:
    """Return faults that must be found before composing; parsing to events is iterative, so depth is safe here."""
    depth = nodes = 0
    faults: list[Fault] = []
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            faults.append(Fault("", "anchors and aliases are not supported; write the value out", line=line))
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            faults.append(Fault("", f"the tag {tag} is not allowed; study files hold plain values", line=line))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            return [Fault("", _TOO_DEEP, line=line)]
        if nodes > MAX_NODES or len(faults) > 20:
            return faults or [Fault("", f"holds more than {MAX_NODES} values", line=line)]
    return faults


def _build(node: yaml.Node, path: Path_, source: YamlSource, faults: list[Fault]) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), source, faults) for index, item in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            faults.append(Fault(dotted(path), "a key must be a plain word", line=line))
            continue
        key = str(key_node.value)
        if key in mapping:
            first = source.lines[(*path, key)]
            faults.append(Fault(dotted((*path, key)), f"is given twice; first on line {first}", line=line))
            continue
        source.lines[(*path, key)] = line
        mapping[key] = _build(value_node, (*path, key), source, faults)
    return mapping


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style in ('"', "'", "|", ">"):  # quoted or block: always text
        return text
    lowered = text.lower()
    if lowered in _WORDS:
        return _WORDS[lowered]
    if lowered in _SPECIAL:
        return _SPECIAL[lowered]
    if _INT.match(text) and len(text) < 400:
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def dotted(path: Path_) -> str:
    """Return a path as messages write it: ``search.space.lora_rank``."""
    return ".".join(map(str, path))
