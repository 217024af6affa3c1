"""One study: budget, leaderboard, curves, what was pruned, hyperparameters, final scores and texts."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from sweeper_dashboard.charts import study as charts
from sweeper_dashboard.data import home
from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import parts

REFRESH_S = 5
CURVES = 12
"""Trials whose curves are drawn at once: more lines cannot be told apart."""


def page() -> None:
    """Show the study that the address names, or the latest; refresh while it runs."""
    st.title("Study")
    with parts.explained():
        name = _chosen(data.study_names())
        if name is None:
            st.info("No study has been run in this home yet.")
            return
        running = data.study(name).standing.running
        st.fragment(_study, run_every=REFRESH_S if running else None)(name, running)


def _chosen(names: list[str]) -> str | None:
    wanted = st.query_params.get("study")
    if wanted is not None and wanted not in names:
        data.study(wanted)  # raises, and names the nearest
    if not names:
        return None
    place = names.index(wanted) if wanted is not None else 0
    name = st.selectbox("Study", names, index=place, format_func=home.clean)
    st.query_params["study"] = name
    return name


def _study(name: str, was_running: bool) -> None:
    with parts.explained():
        study = data.study(name)
        if study.standing.running != was_running:
            st.rerun()
        _budget(study)
        _under_way(study)
        sections = {
            "Leaderboard": _leaderboard,
            "Curves": _curves,
            "Pruned and failed": _ended_early,
            "Hyperparameters": _hyperparameters,
            "Final scores": _scores,
            "Texts": _texts,
            "Study file and events": _origin,
        }
        for tab, show in zip(st.tabs(list(sections)), sections.values(), strict=True):
            with tab:
                show(study)


def _budget(study: data.Study) -> None:
    standing = study.standing
    epochs = f" of {standing.max_epochs:g}" if standing.max_epochs else ""
    shown = {
        "State": standing.state.value,
        "Trials": f"{standing.done} of {standing.n_trials}",
        "Epochs trained": f"{standing.epochs:.1f}{epochs}",
        "Training minutes": f"{standing.train_seconds / 60:.1f}",
        "Best single value": "none yet" if standing.best is None else f"{standing.best:.4g}",
    }
    for column, (label, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
        column.metric(label, value)
    st.progress(min(1.0, standing.done / max(1, standing.n_trials)))
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in standing.outcomes.items()) or "no trial yet"
    lines = [f"{outcomes}; decided by {standing.metric} ({standing.direction}) on the validation split"]
    if standing.objectives:
        lines.append(f"further objectives, so there is no single best: {', '.join(standing.objectives)}")
    if standing.goal is not None:
        told = study.events.loc[study.events["kind"] == "goal", "message"]
        lines.append(told.iloc[-1] if len(told) else f"goal: {standing.metric} of {standing.goal:g}")
    if standing.timeout_s:
        lines.append(f"no trial starts later than {standing.timeout_s / 60:g} minutes into a run")
    if standing.state is data.StudyState.FINISHED and not study.registered:
        lines.append("no adapter of this study is registered")
    lines += [f"registered as {version} from trial {number}" for version, number in study.registered]
    st.text("\n".join(lines))


def _under_way(study: data.Study) -> None:
    """Show the last reported numbers of the trials that have not ended, NaN included."""
    points = data.curves(study.standing.name, _numbers(study.trials[study.trials["outcome"] == "running"]))
    if not points.empty:
        latest = points.drop_duplicates(["trial", "metric"], keep="last").pivot(
            index="trial", columns="metric", values="value"
        )
        steps = points.groupby("trial")["step"].max().rename("at step")
        st.caption("Under way: the last of every number reported")
        parts.table(steps.to_frame().join(latest).reset_index())


def _leaderboard(study: data.Study) -> None:
    if study.leaders.empty:
        st.info("No trial is complete yet.")
        return
    parts.table(study.leaders)
    st.caption(
        "Complete trials only. Configurations run again with fresh seeds come first, by the mean over their seeds, "
        "because the best of many single values is lucky; any that diverged with another seed come last."
    )
    st.text(f"The same in all trials: {study.constant}")
    parts.figure(charts.history(study.trials, study.standing.metric, study.standing.direction), "history")


def _curves(study: data.Study) -> None:
    left, right = st.columns(2)
    pick = left.segmented_control("Trials", ["Best", "Latest"], default="Best", key="curves of")
    leaders, latest = _numbers(study.leaders), _numbers(study.trials)[::-1]
    running = _numbers(study.trials[study.trials["outcome"] == "running"])
    numbers = list(dict.fromkeys([*running, *(latest if pick == "Latest" else leaders)]))[:CURVES]
    points = data.curves(study.standing.name, numbers)
    if points.empty:
        st.info("Nothing has been reported yet.")
        return
    names = sorted(set(points["metric"]), key=lambda name: (name != study.standing.metric, name))
    metric = right.selectbox("Metric", names, key="curve")
    parts.figure(charts.curves(points, metric, leaders[0] if leaders else None), "curves")
    st.caption(f"At most {CURVES} trials, running ones always; the leader is the thick line. Gaps: not finite.")


def _ended_early(study: data.Study) -> None:
    early = study.trials[~study.trials["outcome"].isin(["complete", "running"])]
    if early.empty:
        st.info("No trial was pruned or failed.")
        return
    first = ["trial", "outcome", "reason", "steps", "planned steps", "seconds"]
    parts.table(early[[*first, *study.varied]])


def _hyperparameters(study: data.Study) -> None:
    if study.leaders.empty or not study.varied:
        st.info("Once complete trials differ in a hyperparameter, it is drawn here against the value.")
        return
    parts.figure(charts.parameters(study.trials, study.varied, study.standing.metric), "parameters")
    st.caption("Complete trials only: a pruned one's last value is of less training. Log axes from a decade on.")
    with st.expander("All trials"):
        parts.table(study.trials)


def _scores(study: data.Study) -> None:
    if study.scores.empty:
        st.info("The best trials are scored when the search has ended.")
        return
    split = _split(study, "scores of")
    scores = study.scores[study.scores["split"] == split].drop(columns=["trial", "split"])
    parts.table(scores)
    st.caption("Scores with bootstrap 95 % intervals.")
    parts.figure(charts.intervals(scores, "score", "low", "high"), "scores")
    paired = scores[scores["diff_to_base"].notna()]
    if not paired.empty:
        st.caption(
            "Trial minus base model on the same examples, with 95 % intervals. One that touches the dotted line shows "
            "no difference. Better is to the right; for eval_loss and perplexity to the left."
        )
        parts.figure(charts.intervals(paired, "diff_to_base", "diff_low", "diff_high", zero=True), "differences")


def _texts(study: data.Study) -> None:
    if study.scores.empty:
        st.info("Generated texts are kept when the best trials are scored.")
        return
    split = _split(study, "texts of")
    numbers = study.scored(split)
    if not numbers:
        st.info("No trial has been scored.")
        return
    left, right = st.columns(2)
    number = left.selectbox("Trial", numbers, key="texts of trial")
    metric = right.selectbox("Score", list(dict.fromkeys(study.scores["metric"])), key="texts by")
    examples = data.examples(study.standing.name, number, split, metric)
    if examples.empty:
        st.info("No examples are kept of this trial.")
        return
    place = parts.selected(examples, key="examples") or 0
    row = examples.iloc[place]
    st.caption(f"Example {row['example']}; click the box before another row to see it whole.")
    parts.texts(prompt=row["prompt"], reference=row["reference"])
    parts.texts(base_model=row["base model"], trial=row["trial"])


def _origin(study: data.Study) -> None:
    st.text(study.searched)
    st.code(study.file_text, language=None)
    parts.table(study.events)


def _numbers(trials: pd.DataFrame) -> list[int]:
    return [int(number) for number in trials["trial"]]


def _split(study: data.Study, key: str) -> str:
    splits: list[str] = list(dict.fromkeys(study.scores["split"]))
    return st.selectbox("Split", splits, key=key) if len(splits) > 1 else splits[0]


page()
