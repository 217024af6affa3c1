"""``sweeper status``, ``trials`` and ``best``: the state of studies from the database, without torch."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from sweeper.cli.home import opened_database
from sweeper.cli.output import Json, console, emit_json, emit_json_list, number, safe, say, table
from sweeper.cli.results import front_table, goal_json, goal_of, pareto_front, score_table
from sweeper.config.pipeline import STAGES, stage_name
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError
from sweeper.paths import Home
from sweeper.store import Database, StudyRecord, TrialRecord, stored_config
from sweeper.study.orders import extra_trials, is_run, state_of

_Study = Annotated[str | None, typer.Argument(help="Name of the study; the latest by default.", show_default=False)]

_LISTED = 1_000
"""Most trials in a table: a longer one takes minutes to lay out."""

_NO_STUDIES = "no studies yet; `sweeper run FILE` runs one"


def status(
    name: Annotated[str | None, typer.Argument(help="Only this study.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Show the state of all studies, or of one with its latest events."""
    with opened_database() as database:
        studies = _named(database, name) if name else database.studies.all()
        summaries = [_summary(database, study) for study in studies]
        events = database.events.all(studies[-1].name)[-10:] if name else ()
    if as_json:
        emit_json({**summaries[0], "events": events} if name and len(summaries) == 1 else summaries)
        return
    if not summaries:
        say(_NO_STUDIES)
        return
    columns = ("study", "state", "trials>", "complete>", "pruned>", "failed>", "best>", "metric", "started (UTC)")
    rows = (
        (
            s["name"],
            s["state"],
            f"{s['done']}/{s['n_trials']}",
            *(s[outcome] for outcome in ("complete", "pruned", "failed")),
            number(s["best"]),
            s["metric"],
            f"{s['started_at']:%Y-%m-%d %H:%M}",
        )
        for s in summaries
    )
    console().print(table(columns, rows))
    for event in events:
        say(f"{event.at:%Y-%m-%d %H:%M:%S}  {safe(event.kind)}: {safe(event.message)}")


def trials(name: _Study = None, as_json: Json = False) -> None:
    """List the trials of a study: configuration, outcome and reason. Of very many, the latest."""
    with opened_database() as database:
        study = _one(database, name)
        if as_json:
            emit_json_list(trial for page in database.trials.pages(study.name) for trial in page)
            return
        found = database.trials.latest(study.name, _LISTED)
        left_out = sum(database.trials.counts(study.name).values()) - len(found)
        alive = is_run(database, study.name)
    metric = stored_config(study).evaluation.metric
    varied = _varied(found)
    columns = ("trial>", "kind", "outcome", f"{metric}>", "step>", "seconds>", *varied, "reason")
    console().print(table(columns, (_trial_row(trial, varied, alive) for trial in found)))
    if left_out:
        say(f"{left_out:,} earlier trials are not shown; --json lists them all")


def best(name: _Study = None, as_json: Json = False) -> None:
    """Show the winner of a study and why it won: its configuration, and its scores beside the base model's."""
    with opened_database() as database:
        study = _one(database, name)
        found = {trial.number: trial for trial in database.trials.all(study.name)}
        evaluations = database.evaluations.all(study.name)
        versions = [a for a in database.adapters.all() if a.study == study.name]
        undecided = [event.number for event in database.events.all(study.name) if event.kind == "no_winner"]
    ranked = _ranked(study, list(found.values()))
    if not ranked:
        raise StudyStateError(f"no trial of study {study.name!r} is complete yet; see `sweeper status {study.name}`")
    decided = versions[-1].number if versions else undecided[-1] if undecided else None
    winner = ranked[0] if decided is None else found[decided]
    config = stored_config(study).evaluation
    front = pareto_front(config, ranked, evaluations)
    goal = goal_of(config, winner, front, evaluations)
    if as_json:
        shown = {"study": study.name, "trial": winner.number, "adapters": versions, "evaluations": evaluations}
        emit_json({**shown, "ranked": [t.number for t in ranked], "goal": goal and goal_json(goal), "front": front})
        return
    _show_winner(study, winner, ranked, versions)
    if goal is not None:
        say(f"[bold {'green' if goal.met else 'yellow'}]{safe(goal)}[/]")
    if front:
        console().print(front_table(config, front))
    if evaluations:
        console().print(score_table((each.subject, score) for each in evaluations for score in each.scores))


def _show_winner(study: StudyRecord, winner: TrialRecord, ranked: list[TrialRecord], versions: list[Any]) -> None:
    metric = stored_config(study).evaluation.metric
    version = f", registered as {versions[-1].name} v{versions[-1].version}" if versions else ", not registered"
    say(f"[bold]study {safe(study.name)}: trial {winner.number}{safe(version)}[/]")
    place = next((i for i, trial in enumerate(ranked, start=1) if trial.number == winner.number), None)
    again = [
        t
        for t in ranked
        if winner.number in (t.confirms, t.number) or (winner.confirms is not None and t.number == winner.confirms)
    ]
    values = ", ".join(number(trial.value) for trial in again)
    say(f"  {metric} on validation: {values} ({len(again)} seed{'s' * (len(again) != 1)})")
    say(f"  rank {place} of {len(ranked)} complete trials by a single value")
    say(f"  search: preset {safe(study.space['preset'])}; {safe('; '.join(study.space['reasons']))}")
    shown = {key: value for key, value in winner.parameters.items() if value not in (None, {})}
    console().print(table(("hyperparameter", "value"), shown.items()))


def _summary(database: Database, study: StudyRecord) -> dict[str, Any]:
    config, counts = stored_config(study), Counter(database.trials.counts(study.name))
    return {
        "name": study.name,
        "state": state_of(database, study),
        "n_trials": config.search.n_trials + extra_trials(database, study.name),
        "done": sum(count for outcome, count in counts.items() if outcome is not None and not outcome.is_open),
        "running": counts[None],
        "complete": counts[Outcome.COMPLETE],
        "pruned": counts[Outcome.PRUNED] + counts[Outcome.DIVERGED],
        "failed": counts[Outcome.FAILED] + counts[Outcome.INFEASIBLE],
        "paused": counts[Outcome.PAUSED],
        "interrupted": counts[Outcome.INTERRUPTED],
        "best": database.trials.best_value(study.name, config.evaluation.direction),
        "metric": config.evaluation.metric,
        "started_at": study.started_at,
        "ended_at": study.ended_at,
    }


def _ranked(study: StudyRecord, found: list[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials, best value first."""
    sign = 1 if stored_config(study).evaluation.direction == "minimize" else -1
    complete = [trial for trial in found if trial.value is not None]
    return sorted(complete, key=lambda trial: sign * (trial.value or 0.0))


def _varied(found: tuple[TrialRecord, ...]) -> list[str]:
    """Return the hyperparameters that differ between trials."""
    names = {name for trial in found for name in trial.parameters}
    return sorted(name for name in names if len({repr(trial.parameters.get(name)) for trial in found}) > 1)


def _trial_row(trial: TrialRecord, varied: list[str], alive: bool) -> tuple[object, ...]:
    kind = f"repeat of {trial.confirms}" if trial.confirms is not None else trial.kind
    values = (trial.parameters.get(name) for name in varied)
    return (
        trial.number,
        kind,
        trial.outcome or ("running" if alive else "interrupted"),
        number(trial.value),
        f"{trial.steps}/{trial.total_steps}" if trial.total_steps else "",
        f"{trial.train_seconds:.0f}",
        *(f"{value:.3g}" if isinstance(value, float) else value for value in values),
        trial.reason or "",
    )


def _one(database: Database, name: str | None) -> StudyRecord:
    if name is not None:
        return _named(database, name)[-1]
    studies = database.studies.all()
    if not studies:
        raise StudyStateError(_NO_STUDIES)
    return max(studies, key=lambda study: study.started_at)


def _named(database: Database, name: str) -> tuple[StudyRecord, ...]:
    """Return the study of this name; for a pipeline, the study of every stage that has begun."""
    if Home.current().study(name).pipeline.is_file():
        found = (database.studies.find(stage_name(name, stage)) for stage in STAGES)
        begun = tuple(study for study in found if study is not None)
        if begun:
            return begun
    return (database.studies.get(name),)
