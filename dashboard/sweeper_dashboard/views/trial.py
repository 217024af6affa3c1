"""The Trial page: curves, pruning, hyperparameters, scores, files, and commands to run the trial again."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sweeper_dashboard.charts import trial as charts
from sweeper_dashboard.charts.curves import AXES
from sweeper_dashboard.data import home, studies, trial_files
from sweeper_dashboard.data import trials as data
from sweeper_dashboard.views import parts

REFRESH_S = 5
_LAST = 5
"""Decisions that are shown in words; the table has all."""
_TRAINING = ("loss", "learning_rate", "grad_norm")


def page() -> None:
    """Show the trial in the address, or the best of the study; refresh while it runs."""
    st.title("Trial")
    with parts.explained():
        study = parts.chosen_study(studies.study_names(), "trial")
        if study is None:
            return
        found = data.trial(study, _number())
        if found is None:
            st.info("This study has no trial yet; the first one appears here as soon as it starts.")
            return
        _pick(found)
        st.fragment(_trial, run_every=REFRESH_S if found.running else None)(study, found.number, found.running)


def _number() -> int | None:
    """Return the trial number in the address; None if there is none."""
    wanted = st.query_params.get("trial", "")
    return int(wanted[:18]) if wanted.isascii() and wanted.isdigit() else None


def _pick(found: data.Trial) -> None:
    """Let another trial be picked, and keep it in the address."""
    st.query_params["trial"] = str(found.number)
    numbers = found.numbers
    place = numbers.index(found.number)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        asked = st.number_input("Trial", numbers[0], numbers[-1], found.number, width=150)
        former = st.button("Previous", icon=":material/chevron_left:", disabled=place == 0)
        later = st.button("Next", icon=":material/chevron_right:", disabled=place == len(numbers) - 1)
        best = st.button("Best", icon=":material/trophy:", disabled=found.best in (None, found.number))
        _links(found)
    goal = numbers[place - 1] if former else numbers[place + 1] if later else found.best if best else asked
    if goal != found.number and goal is not None:
        st.query_params["trial"] = str(goal)
        st.rerun()


def _links(found: data.Trial) -> None:
    mine = f"{found.study}:{found.number}"
    other = f"{found.study}:{'base' if found.rival is None else found.rival}"
    against = {"subjects": f"{other},{mine}", "reference": other}
    parts.link("Compare", "compare", against, icon=":material/compare_arrows:")
    clone = {"study": found.study, "clone": str(found.number)}
    parts.link("Clone", "control", clone, icon=":material/content_copy:")
    parts.link("Study", "study", {"study": found.study}, icon=":material/monitoring:")


def _trial(study: str, number: int, was_running: bool) -> None:
    with parts.explained():
        found = data.trial(study, number)
        assert found is not None
        if found.running != was_running:
            st.rerun()
        _head(found)
        parts.section(SECTIONS)(found)


def _head(found: data.Trial) -> None:
    record = found.record
    progress = record.steps / record.total_steps if record.total_steps else 0.0
    shown = {
        "State": found.outcome,
        "Value": "none yet" if record.value is None else f"{record.value:.4g}",
        "Place": "unranked" if found.place is None else f"{found.place} of {found.complete}",
        "Steps": f"{record.steps:,} of {record.total_steps:,}" if record.total_steps else f"{record.steps:,}",
        "Minutes": f"{record.train_seconds / 60:.1f}",
    }
    parts.metrics(shown)
    if found.running:
        st.progress(min(1.0, progress), text="Running; this page refreshes by itself.")
    lines = [f"reason it ended: {found.reason}"] if found.reason else []
    lines += [f"{how} trial {number}" for how, number in found.relations]
    lines += [home.clean(f"registered as {name} v{version}") for name, version in found.versions]
    if lines:
        st.text("\n".join(lines))


def _curves(found: data.Trial) -> None:
    points = data.curve(found)
    if points.empty:
        st.info("Nothing has been reported yet.")
        return
    _judged(found, points)
    st.subheader("Training")
    left, right = st.columns([2, 1])
    over = left.segmented_control("X axis", list(AXES), default="step", key="curve over", required=True)
    smoothing = right.slider("Smoothing", 0.0, 0.99, 0.6, 0.01, key="curve smoothing")
    there = list(dict.fromkeys(points["metric"]))
    names = [name for name in _TRAINING if name in there]
    names += [name for name in there if name not in (*_TRAINING, found.of.metric)]
    figures = charts.panels(points, names, str(over), smoothing)
    for start in range(0, len(names), 2):
        for column, name in zip(st.columns(2), names[start : start + 2], strict=False):
            with column:
                parts.figure(figures[name], f"curve of {name}")
    st.caption(
        f"Gaps: NaN or infinite values. Epochs and tokens are spread evenly over the steps. At most "
        f"{charts.MOST_POINTS:,} points of a curve are drawn. Smoothing is an exponential moving average."
    )


def _judged(found: data.Trial, points: pd.DataFrame) -> None:
    """Show the deciding metric on the field of the others, and what the pruner decided."""
    st.subheader("The deciding metric, and the pruner")
    band, of, out_of = data.field(found)
    pruning = data.pruning(found)
    decisions = data.decided(pruning)
    own = points[points["metric"] == found.of.metric]
    ended = found.outcome if found.outcome in ("pruned", "diverged", "failed", "interrupted", "paused") else ""
    parts.figure(
        charts.judged(own, band, found.of.metric, pruning.rungs, decisions, ended),
        "deciding",
    )
    sample = f"a sample of {of} of the {out_of}" if of < out_of else f"the {of}"
    st.caption(f"Grey: {sample} other trials of the same length, at equal progress: the median and the middle half.")
    st.text(f"pruner: {pruning.pruner}")
    for decision in pruning.decisions[-_LAST:]:
        st.text(decision.reason)
    if pruning.note:
        st.text(pruning.note)
    if not decisions.empty:
        parts.table(decisions)


def _parameters(found: data.Trial) -> None:
    parts.table(data.parameters(found))
    beside = "" if found.best is None else " beside those of the best trial"
    st.caption(f"This trial's hyperparameters{beside}, with the ranges searched. Those that differ come first.")


def _evaluations(found: data.Trial) -> None:
    splits = data.splits(found)
    if not splits:
        st.info("Not scored: a study scores only its best trials on the test split, once the search has ended.")
        return
    left, right = st.columns(2)
    split = left.selectbox("Split", splits, format_func=home.clean)
    scores = data.scores(found, split)
    metric = right.selectbox("Score examples by", list(scores["metric"]), format_func=home.clean)
    parts.table(scores)
    st.caption("Scores with bootstrap 95 % intervals, and the paired difference from the base model.")
    examples = data.examples(found, split, metric)
    if examples.empty:
        st.info("No examples of this trial are stored.")
        return
    counts = examples["won"].value_counts()
    options = ["all", "win", "loss", "tie"]
    kind = st.segmented_control(
        "Against the base model",
        options,
        default="all",
        format_func=lambda of: f"{of} ({len(examples) if of == 'all' else counts.get(of, 0)})",
        required=True,
    )
    chosen = examples if kind == "all" else examples[examples["won"] == kind]
    if chosen.empty:
        st.info("No examples match.")
        return
    table = chosen[["example", "won", "base score", "trial score", "prompt", "reference", "trial"]]
    row = chosen.loc[parts.selected_example(table, f"examples {kind}").name]
    parts.texts(prompt=row["prompt"], reference=row["reference"])
    parts.side_by_side(
        [("base model", row["base model"]), (f"trial {found.number}", row["trial"])], against=row["base model"]
    )


def _run(found: data.Trial) -> None:
    left, right = st.columns(2)
    with left:
        st.subheader("Device and cost")
        parts.table(trial_files.facts(found))
    with right:
        st.subheader("Files")
        files = trial_files.files(found)
        if files.empty:
            st.info("The trial's folder is gone, or on another machine.")
        else:
            parts.table(files)
    st.subheader("Events")
    events = data.events(found)
    if events.empty:
        st.caption("No events were recorded for this trial.")
    else:
        parts.table(events)
    for name, text in trial_files.logs(found).items():
        st.subheader("End of the log")
        st.text(name)
        st.code(text or " ", language=None, wrap_lines=True, height=360)


def _again(found: data.Trial) -> None:
    begun_from = trial_files.initial(found)
    st.subheader("As a new trial of the same study")
    parts.command(trial_files.clone_command(found))
    st.caption("The study runs it with a new seed once it is running; the Control page can change its values first.")
    if begun_from is not None:
        st.caption(f"This trial started from the weights of trial {begun_from}, and so does the new one.")
    st.subheader("As a separate study")
    try:
        text = trial_files.study_file(found)
    except home.SweeperError as error:
        st.info("This trial cannot be written as a study file.")
        st.text(home.said(error))
    else:
        st.download_button(
            "Download the study file",
            text,
            file_name=trial_files.file_name(found),
            mime="application/yaml",
            icon=":material/download:",
            on_click="ignore",
        )
        parts.command(trial_files.run_command(found))
        st.caption("One trial with every value fixed, on the same rows and base model.")
        if begun_from is not None:
            st.caption(f"It starts from the base model, not the weights of trial {begun_from}, so results will differ.")
        with st.expander("Study file"):
            parts.command(text)
    st.subheader("With TRL alone")
    command = trial_files.export_command(found)
    if command is None:
        st.caption("Recipes are exported from registered versions, and none was registered from this trial.")
    else:
        parts.command(command)
        anew = (
            "" if begun_from is None else f", starting from the base model instead of the weights of trial {begun_from}"
        )
        st.caption(f"Writes a script and a configuration that retrain this adapter without sweeper{anew}.")


SECTIONS = {
    "Curves": _curves,
    "Parameters": _parameters,
    "Evaluations": _evaluations,
    "Run and files": _run,
    "Run it again": _again,
}

page()
