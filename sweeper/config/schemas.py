"""JSON schemas of a study file: checked as a whole before the first answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from sweeper.config.patterns import pattern_fault


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Return why a JSON schema cannot be used, or None where it can; nothing is fetched."""
    dialect = schema.get("$schema", "")
    kind = validator_for(schema, default=None) if isinstance(dialect, str) else None
    if "$schema" in schema and kind is None:
        return f"$schema {dialect!r} is no known version; leave it out, or write https://json-schema.org/draft/2020-12/schema"
    try:
        return _Check(kind or validator_for({})).fault(schema)
    except RecursionError:
        return "it is nested too deep"


class _Check:
    """Looks at a schema, everything in it and everything that it refers to, each once."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._specification: Any = specification_with(kind.ID_OF(kind.META_SCHEMA))
        self._seen: set[int] = set()
        self._keywords: set[str] = set()

    def fault(self, schema: Any) -> str | None:
        """Return what is wrong with the schema or with what it refers to."""
        resource = self._specification.create_resource(schema)
        if fault := self._form(schema) or self._parts(resource, Registry().resolver_with_root(resource)):
            return fault
        if {"unevaluatedProperties", "patternProperties"} <= self._keywords:
            # jsonschema looks at the patterns by itself then, with another module and without a time limit
            return "unevaluatedProperties and patternProperties do not go together here; use additionalProperties"
        return None

    def _form(self, schema: Any) -> str | None:
        try:
            self._kind.check_schema(schema, format_checker=None)  # patterns are checked here, as they run
        except SchemaError as error:
            return str(error.message)
        except TypeError as error:  # of keys that are no text
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
                return f"pattern {pattern!r} is no regular expression: {fault}"
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in schema and (fault := self._reference(schema[keyword], resolver)):
                return f"{keyword} {schema[keyword]!r} {fault}"
        parts = (self._parts(part, resolver.in_subresource(part)) for part in resource.subresources())
        return next((fault for fault in parts if fault is not None), None)

    def _reference(self, reference: Any, resolver: Any) -> str | None:
        try:
            found = resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError, LookupError, AttributeError):
            return "refers to what is not in the schema, and nothing is fetched; write what it means into $defs"
        if not isinstance(found.contents, Mapping | bool):
            return "refers to what is no schema"
        return self._form(found.contents) or self._parts(
            self._specification.create_resource(found.contents), found.resolver
        )
