"""``sweeper check``: everything about a study that can be known without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.check import CheckReport, check_study
from sweeper.cli.output import emit_json, progress, safe, say
from sweeper.config.loader import StudyFile, load_study


def check(
    file: Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)],
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the model if it is not on this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say everything about a study that can be known without training.

    Warnings do not fail; whatever the study cannot run with does, with exit code 2.
    """
    found = load_study(file)
    studies = (found,) if isinstance(found, StudyFile) else tuple(found.stages.values())
    stages = {study.config.name for study in studies}
    with progress() as on_progress:
        reports = [check_study(study, fetch=fetch, awaited=stages, on_progress=on_progress) for study in studies]
    if as_json:
        emit_json(_json(reports[0]) if isinstance(found, StudyFile) else [_json(report) for report in reports])
        return
    for report in reports:
        if len(reports) > 1:
            say(f"\n[bold underline]{safe(report.study)}[/]")
        _show(report)
    count = sum(len(report.warnings) for report in reports)
    summary = f"{count} warning{'s' * (count != 1)}" if count else "no warnings"
    say(f"[bold green]ok:[/] {safe(file)} can run, {summary}")


def _json(report: CheckReport) -> dict[str, Any]:
    return {"study": report.study, "ok": True, "warnings": report.warnings, **report.figures}


def _show(report: CheckReport) -> None:
    for section in report.sections:
        say(f"[bold]{section.title}[/]")
        for line in section.lines:
            say(f"  {safe(line)}")
    for warning in report.warnings:
        say(f"[yellow]warning:[/] {safe(warning)}")
