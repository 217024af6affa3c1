"""``sweeper check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.check.report import CheckReport, check_study
from sweeper.cli.output import Json, emit_json, progress, safe, say
from sweeper.config.loader import StudyFile, load_study


def check(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)],
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the base model if it is missing.")] = False,
    as_json: Json = False,
) -> None:
    """Check a study without training: errors, steps, memory and duration.

    A study that cannot run ends the check with exit code 2; warnings do not.
    """
    found = load_study(file)
    studies = (found,) if isinstance(found, StudyFile) else tuple(found.stages.values())
    stages = {study.config.name for study in studies}
    with progress() as on_progress:
        reports = [check_study(study, fetch=fetch, awaited=stages, on_progress=on_progress) for study in studies]
    if as_json:
        plain = [{"study": r.study, "ok": True, "warnings": r.warnings, **r.figures} for r in reports]
        emit_json(plain[0] if isinstance(found, StudyFile) else plain)
        return
    for report in reports:
        if len(reports) > 1:
            say(f"\n[bold underline]{safe(report.study)}[/]")
        _show(report)
    count = sum(len(report.warnings) for report in reports)
    summary = f"{count} warning{'s' * (count != 1)}" if count else "no warnings"
    say(f"[bold green]ok:[/] {safe(file)} can run, {summary}")


def _show(report: CheckReport) -> None:
    for section in report.sections:
        say(f"[bold]{section.title}[/]")
        for line in section.lines:
            say(f"  {safe(line)}")
    for warning in report.warnings:
        say(f"[yellow]warning:[/] {safe(warning)}")
