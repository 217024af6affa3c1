"""Functions that a study file names as ``module:function``, found without importing user code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_CONSTANT = (ast.Constant, ast.List, ast.Dict, ast.Set, ast.Tuple, ast.JoinedStr, ast.ListComp, ast.DictComp)
"""Values that cannot be called."""


def find_module(name: str, folder: Path) -> ModuleSpec | None:
    """Return the place that a module would be imported from, ``folder`` first, or None."""
    places, spec = [str(folder), *sys.path], None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def function_fault(reference: str, folder: Path, arguments: Sequence[str] | None = None) -> str | None:
    """Return why ``module:function`` cannot be used, as far as its source shows, or None.

    ``folder`` is searched first; ``arguments`` are the names of those in a call, None if they are not known yet.
    """
    module, _, name = reference.partition(":")
    if fault := _hiding_fault(module.partition(".")[0], folder):
        return fault
    spec = find_module(module, folder)
    if spec is None:
        return f"there is no module {module!r} in {folder} or among the installed packages"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None  # compiled: only an import would show
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        return f"{spec.origin} cannot be read: {error}"
    names = _defined(tree)
    if "*" in names:
        return None
    if name not in names:
        return f"{spec.origin} defines no {name}; it has {', '.join(sorted(names)) or 'nothing'}"
    fault = _call_fault(names[name], arguments)
    return None if fault is None else f"{name} in {spec.origin} {fault}"


def _hiding_fault(name: str, folder: Path) -> str | None:
    """Return that a module in the study's folder would shadow another one in the whole process, or None."""
    local = PathFinder.find_spec(name, [str(folder)])
    if local is None or local.origin is None:  # a folder without __init__.py shadows nothing
        return None
    if name in sys.stdlib_module_names:
        other = "Python's own"
    elif _elsewhere(name, local.origin, folder):
        other = "the installed one"
    else:
        return None
    return f"{local.origin} would replace {other} module {name!r} everywhere; rename the file"


def _elsewhere(name: str, origin: str, folder: Path) -> bool:
    """Return whether a module would be found without the study's folder, whatever is already loaded."""
    places = [place for place in sys.path if Path(place).resolve() != folder.resolve()]
    specs = [PathFinder.find_spec(name, places)]
    for finder in sys.meta_path:  # editable installs have their own finders
        specs.append(finder.find_spec(name, None))
    origins = [spec.origin for spec in specs if spec is not None and spec.origin is not None]
    return any(Path(other).resolve() != Path(origin).resolve() for other in origins)


def _call_fault(node: ast.AST | None, arguments: Sequence[str] | None) -> str | None:
    """Return why the value bound to a name cannot be called; None if it can, or only running it would show."""
    if isinstance(node, ast.AsyncFunctionDef):
        return "is async; write it as a plain function"
    if isinstance(node, ast.Import):
        return "is a module; name a function"
    if isinstance(node, _CONSTANT):
        return "is not a function"
    if isinstance(node, ast.Lambda) or (isinstance(node, ast.FunctionDef) and not node.decorator_list):
        return None if arguments is None else _signature_fault(node.args, arguments)
    return None


def _signature_fault(own: ast.arguments, arguments: Sequence[str]) -> str | None:
    """Return the arguments, all passed by name, that a function does not take, or those it lacks."""
    positional = [*own.posonlyargs, *own.args]
    optional = [arg.arg for arg in positional[len(positional) - len(own.defaults) :]]
    optional += [arg.arg for arg, value in zip(own.kwonlyargs, own.kw_defaults, strict=True) if value is not None]
    by_name = [arg.arg for arg in (*own.args, *own.kwonlyargs)]
    called = f"it is called with {', '.join(arguments)}, all by name"
    refused = [name for name in arguments if name not in by_name and own.kwarg is None]
    if refused:
        return f"takes no {' and no '.join(refused)}; {called}: add **columns for the unused ones"
    needed = [arg.arg for arg in own.posonlyargs] + [name for name in by_name if name not in arguments]
    missing = [name for name in needed if name not in optional]
    return f"needs {' and '.join(missing)}; {called}" if missing else None


def _defined(tree: ast.Module) -> dict[str, ast.AST | None]:
    """Return the names that a module defines, each with its last value; None if that may be anything."""
    names: dict[str, ast.AST | None] = {}
    for node in tree.body:
        if isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With | ast.For | ast.While | ast.Match):
            # what is defined under a condition is known only once it runs
            names |= {name: None for part in ast.walk(node) for name, _ in _bound(part)}
        else:
            names |= dict(_bound(node))
    return names


def _bound(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """Yield the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.ImportFrom | ast.Import):
        yield from ((alias.asname or alias.name, node) for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None:
            for target in targets:
                yield from _targets(target, node.value)


def _targets(target: ast.AST, value: ast.AST | None) -> Iterator[tuple[str, ast.AST | None]]:
    """Yield the names on the left of an assignment; of several at once the values are unknown."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _targets(part, None)
