"""Checks of the regular expressions and JSON schemas in a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

_BRACES = regex.compile(r"\\[pPN]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<fuzzy>\{[\d<=+,]*[deis])", regex.DOTALL)
"""Escapes and sets, where braces mean nothing, and braces that ``regex`` takes for an approximate match."""


def pattern_fault(pattern: object) -> str | None:
    """Return why a regular expression cannot be used, or None."""
    if not isinstance(pattern, str):
        return "it is not text; put it in quotes"  # a key that YAML reads as a number
    fuzzy = next((found for found in _BRACES.finditer(pattern) if found["fuzzy"]), None)
    if fuzzy is not None:
        return f"{{ at position {fuzzy.start()} is an approximate match, which is not allowed; write \\{{ for a brace"
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, LookupError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Return why a JSON schema cannot be used, or None; nothing is fetched."""
    dialect = schema.get("$schema", "")
    kind = validator_for(schema, default=None) if isinstance(dialect, str) else None
    if "$schema" in schema and kind is None:
        return f"$schema {dialect!r} is not a known version; leave it out, or write https://json-schema.org/draft/2020-12/schema"
    try:
        return _Check(kind or validator_for({})).fault(schema)
    except RecursionError:
        return "it is nested too deeply"


class _Check:
    """Check of a schema, all its parts and everything it refers to, each once."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._specification: Any = specification_with(kind.ID_OF(kind.META_SCHEMA))
        self._seen: set[int] = set()
        self._keywords: set[str] = set()

    def fault(self, schema: Any) -> str | None:
        """Return what is wrong with the schema or what it refers to."""
        resource = self._specification.create_resource(schema)
        if fault := self._form(schema) or self._parts(resource, Registry().resolver_with_root(resource)):
            return fault
        if {"unevaluatedProperties", "patternProperties"} <= self._keywords:
            # jsonschema would run the patterns itself then, with another module and without a time limit
            return "unevaluatedProperties and patternProperties do not go together here; use additionalProperties"
        return None

    def _form(self, schema: Any) -> str | None:
        try:
            self._kind.check_schema(schema, format_checker=None)  # patterns are checked here, as they run
        except SchemaError as error:
            return str(error.message)
        except TypeError as error:  # of keys that are not text
            return str(error)
        return None

    def _parts(self, resource: Resource[Any], resolver: Any) -> str | None:
        schema = resource.contents
        if not isinstance(schema, Mapping) or id(schema) in self._seen:
            return None
        self._seen.add(id(schema))
        self._keywords.update(schema)
        for pattern in (*([schema["pattern"]] if "pattern" in schema else []), *schema.get("patternProperties", {})):
            if fault := pattern_fault(pattern):
                return f"pattern {pattern!r} is not a regular expression: {fault}"
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in schema and (fault := self._reference(schema[keyword], resolver)):
                return f"{keyword} {schema[keyword]!r} {fault}"
        parts = (self._parts(part, resolver.in_subresource(part)) for part in resource.subresources())
        return next((fault for fault in parts if fault is not None), None)

    def _reference(self, reference: Any, resolver: Any) -> str | None:
        try:
            found = resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError, LookupError, AttributeError):
            return "refers to something outside the schema, and nothing is fetched; copy it into $defs"
        if not isinstance(found.contents, Mapping | bool):
            return "refers to something that is not a schema"
        return self._form(found.contents) or self._parts(
            self._specification.create_resource(found.contents), found.resolver
        )
