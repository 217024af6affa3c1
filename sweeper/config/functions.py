"""Functions that a study file names as ``module:function``: found without importing anything of the user's."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


def find_module(name: str, folder: Path) -> ModuleSpec | None:
    """Return where a module would be imported from, ``folder`` first; None where there is none of this name."""
    places, spec = [str(folder), *sys.path], None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def function_fault(reference: str, folder: Path) -> str | None:
    """Return why ``module:function`` cannot be used, as far as its source tells, or None where it can."""
    module, _, name = reference.partition(":")
    spec = find_module(module, folder)
    if spec is None:
        return f"there is no module {module!r} in {folder} or among the installed packages"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None  # compiled: only importing it would tell
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        return f"{spec.origin} cannot be read: {error}"
    names, asynchronous = _defined(tree)
    if name in asynchronous:
        return f"{name} in {spec.origin} is async; write it as a plain function"
    if name not in names and "*" not in names:
        return f"{spec.origin} defines no {name}; it has {', '.join(sorted(names)) or 'nothing'}"
    return None


def _defined(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the names that a module's own lines define, and which of them are async functions."""
    names, asynchronous = set(), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AsyncFunctionDef):
            asynchronous.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            names.add("*")  # what is defined under a condition is known only once it runs
    return names, asynchronous
