"""Sections on a study's model, data and search space."""

from __future__ import annotations

from typing import Any

from sweeper.check import Section
from sweeper.config.backend import processes
from sweeper.config.evaluation import EvaluationConfig
from sweeper.config.space import Fixed, describe
from sweeper.evaluation.comparison import FEWEST_EXAMPLES
from sweeper.evaluation.goal import shown_count
from sweeper.hardware import gpus
from sweeper.presets.resolution import WARNING
from sweeper.study.resolve import ResolvedModel, ResolvedStudy
from sweeper.training.cpu_dtype import is_measured, is_quantised, known

_FEW_ROWS = 100
"""With fewer test rows, differences below 14 points of 100 may stay undecided."""


def model(study: ResolvedStudy) -> Section:
    """Describe the base models, their sources, and the training device."""
    lines: list[str] = []
    figures: dict[str, dict[str, Any]] = {}
    for name, resolved in study.models.items():
        described, figures[name] = _one_model(resolved)
        lines += described
    lines.append(f"trains on {_where(study)}")
    lines += _cpu_type(study)
    several = len(figures) > 1
    found = {"device": study.device} | ({"models": figures} if several else figures.popitem()[1])
    return Section("model", tuple(lines), figures=found)


def _one_model(resolved: ResolvedModel) -> tuple[tuple[str, ...], dict[str, Any]]:
    found, facts = resolved.found, resolved.facts
    figures: dict[str, Any] = {
        "name": found.name,
        "source": found.source,
        "path": str(found.path),
        "license": found.license,
        "planned": found.planned,
    }
    if facts is None:
        later = "its size and token counts are checked once it is downloaded (--fetch)"
        return (f"{found.name}: {found.planned}", later), figures
    figures |= {"architecture": facts.architecture, "parameters": facts.parameters}
    size, licence = shown_count(facts.parameters), found.license or "?"
    lines = (
        f"{found.name}: {facts.architecture}, {size} parameters, licence {licence}",
        f"from {_SOURCES[found.source]}: {found.path}",
    )
    return lines, figures


def _where(study: ResolvedStudy) -> str:
    backend = study.config.backend
    count = processes(backend, 0 if study.device == "cpu" else len(gpus()))
    several = f"{count} processes, " if count > 1 else ""
    return f"{several}{study.device if count == 1 or study.device == 'cpu' else 'a GPU each'}, with {backend.kind}"


def _cpu_type(study: ResolvedStudy) -> list[str]:
    """Describe the meaning of ``dtype: auto`` on the CPU, and the reason."""
    if study.device != "cpu" or not is_measured(study.config):
        return []
    found = known(quantised=is_quantised(study.config))
    if found is None:
        return ["computes in float32 or bfloat16, whichever a measurement of about a second finds faster"]
    return [f"computes in {found.dtype}: {found.reason}"]


_SOURCES = {
    "folder": "a local folder",
    "cache": "sweeper's cache",
    "hub-cache": "the Hub's local cache",
    "hub": "the Hub",
    "wheel": "a package index",
    "start": "a registered adapter, merged into its base",
}


def data(study: ResolvedStudy) -> Section:
    """Describe the rows."""
    splits = study.splits
    rows = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    counts = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    kind = {"prompt_completion_messages": "chats split into prompt and completion", "messages": "chats"}
    lines = (f"{counts} rows: {kind.get(splits.kind, splits.kind.replace('_', ' and '))}",)
    warnings = (*splits.notes, *small_test(len(splits.test)))
    figures = {"rows": rows, "kind": splits.kind, "notes": (*splits.unused, *splits.notes)}
    return Section("data", (*lines, *splits.unused), warnings, figures)


def small_test(rows: int) -> tuple[str, ...]:
    """Return what a small test split cannot decide.

    The half width of the 95 % interval of a difference of two shares on the same ``rows`` examples, each right half of
    the time and independently, is 1.96 * sqrt(0.5 / rows); models that agree on many examples do better.
    """
    if rows < FEWEST_EXAMPLES:
        return (
            f"test has {rows} rows, and below {FEWEST_EXAMPLES} no difference can be significant, so nothing can be "
            "proven or registered; add rows, or raise data.test_fraction",
        )
    if rows < _FEW_ROWS:
        points = 100 * 1.96 * (0.5 / rows) ** 0.5
        return (f"test has {rows} rows: differences below about {points:.0f} points of 100 may stay undecided",)
    return ()


def space(study: ResolvedStudy) -> Section:
    """Describe the search space and the reasons for it."""
    resolved, search = study.space, study.config.search
    ranges = {name: describe(range_) for name, range_ in resolved.space.items()}
    searched = [name for name, range_ in resolved.space.items() if not isinstance(range_, Fixed)]
    reasons = [reason for reason in resolved.reasons if not reason.startswith(WARNING)]
    warnings = tuple(reason.removeprefix(WARNING) for reason in resolved.reasons if reason.startswith(WARNING))
    if not searched:
        warnings += ("nothing is searched: every parameter is fixed, so trials differ only in their seeds",)
    lines = [f"{name}: {text}{_when(resolved.space[name].when)}" for name, text in ranges.items()]
    lines += [f"because: {reason}" for reason in reasons]
    lines += [f"known good: {_listed(values)}" for values in resolved.known_good]
    lines += [f"enqueued: {_listed(values)}" for values in search.enqueue]
    lines.append(
        f"{search.n_trials} trials, sampler {search.sampler.kind}, pruner {search.pruner.kind}, "
        f"decided by {study.config.evaluation.metric}{_aims(study.config.evaluation)}"
    )
    figures = {
        "preset": resolved.preset,
        "ranges": {name: range_.model_dump() for name, range_ in resolved.space.items()},
        "reasons": resolved.reasons,
        "known_good": resolved.known_good,
        "n_trials": search.n_trials,
    }
    return Section("space", tuple(lines), warnings, figures)


def _aims(evaluation: EvaluationConfig) -> str:
    """Describe the objectives beside the metric, and its goal."""
    further = f" beside {', '.join(evaluation.objectives)}" if evaluation.objectives else ""
    if evaluation.goal is None:
        return further
    asked = f"{'at most' if evaluation.direction == 'minimize' else 'at least'} {evaluation.goal:g}"
    return f"{further}; {f'the smallest with {asked} wins' if further else f'its goal is {asked}'}"


def _when(when: dict[str, Any]) -> str:
    conditions = [f"{name} is {' or '.join(map(str, values))}" for name, values in when.items()]
    return f" (only if {' and '.join(conditions)})" if conditions else ""


def _listed(values: dict[str, Any]) -> str:
    shown = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    return ", ".join(shown)
