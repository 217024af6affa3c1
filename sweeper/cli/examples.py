"""``sweeper init --example``: copies the example studies and their data."""

from __future__ import annotations

from pathlib import Path

from sweeper.cli.output import safe, say
from sweeper.cli.shipped import STUDIES, shipped_folder
from sweeper.errors import UserError

_NAMED = 3  # most conflicting files that the message names


def write_examples(folder: Path) -> None:
    """Copy the example studies into ``folder``, which may exist, and print the next steps.

    Raises:
        UserError: If a file with other content exists there; nothing is written then.
    """
    shipped = shipped_folder(STUDIES)
    names = sorted(path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file())
    sources = {name: shipped / name for name in names if not any(map(_is_by_product, name.parts))}
    changed = [str(folder / name) for name, source in sources.items() if _in_the_way(folder / name, source)]
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        files = ", ".join(changed[:_NAMED]) + more
        raise UserError(f"{files} would be overwritten; choose another folder: sweeper init --example DIR")
    for name, source in sources.items():
        _copy(source, folder / name)
    say(f"{safe(folder)} now has the {len(sources)} files of the example studies")
    for study in (name for name in sources if name.suffix == ".yaml" and name.parent == Path()):
        say(f"next: sweeper check {safe(folder / study)}, then sweeper run {safe(folder / study)}")


def _is_by_product(part: str) -> bool:
    return part == "__pycache__" or part.startswith(".")


def _in_the_way(target: Path, source: Path) -> bool:
    if not target.exists():
        return target.is_symlink()
    return not target.is_file() or target.read_bytes() != source.read_bytes()


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
