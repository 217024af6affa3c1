"""The check of a study, one section per topic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.check import Section, duration, length, memory
from sweeper.check import inputs as parts
from sweeper.config.loader import StudyFile
from sweeper.hardware import machine
from sweeper.models.cache import OnStage
from sweeper.study.resolve import ResolvedStudy, resolve_study


@dataclass(frozen=True)
class CheckReport:
    """The findings about a study, by topic."""

    study: str
    sections: tuple[Section, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all sections; they stop nothing."""
        return tuple(warning for section in self.sections for warning in section.warnings)

    @property
    def figures(self) -> dict[str, Mapping[str, Any]]:
        """The numbers of each section by its title, as plain data."""
        return {section.title: section.figures for section in self.sections}


def check_study(
    file: StudyFile,
    *,
    fetch: bool = False,
    awaited: Collection[str] = (),
    on_progress: OnStage = lambda stage, fraction: None,
) -> CheckReport:
    """Check everything about a study that can be known without training.

    Args:
        file: A valid study with its file.
        fetch: Whether to download a missing model; otherwise the sections that need it are left out.
        awaited: Names of adapters that an earlier stage will register.
        on_progress: Called with the stage and the fraction downloaded.

    Raises:
        UserError: If the study cannot run as it is; see ``resolve_study``.
    """
    study = resolve_study(file, fetch=fetch, awaited=awaited, on_progress=on_progress)
    return CheckReport(file.config.name, tuple(_sections(study)))


def _sections(study: ResolvedStudy) -> list[Section]:
    here = machine()
    sections = [parts.model(study), parts.data(study), parts.space(study), length.steps(study)]
    if any(model.facts is None for model in study.models.values()):
        return sections  # the rest needs the models' tokenizers and sizes
    tokens = {name: length.tokens(study, model) for name, model in study.models.items()}
    fits = memory.memory(study, here, tokens)
    return [*sections, length.tokens_section(tokens), fits, duration.duration(study, here, tokens)]
