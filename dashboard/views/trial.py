"""One trial: parameters, curves, why it ended, evaluations and texts, device and files, how to run it again."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st
from sweeper_dashboard.charts import trial as charts
from sweeper_dashboard.charts.curves import AXES
from sweeper_dashboard.data import home, studies
from sweeper_dashboard.data import trials as data
from sweeper_dashboard.views import marked, parts

REFRESH_S = 5
_TRAINING = ("loss", "learning_rate", "grad_norm")


def page() -> None:
    """Show the trial that the address names, or the best of the study; refresh while it runs."""
    st.title("Trial")
    with parts.explained():
        study = parts.chosen_study(studies.study_names(), "trial")
        if study is None:
            st.info("No study has been run in this home yet.")
            return
        found = data.trial(study, _number())
        if found is None:
            st.info("This study has no trial yet: its first one shows here as soon as it begins.")
            return
        _pick(found)
        st.fragment(_trial, run_every=REFRESH_S if found.running else None)(study, found.number, found.running)


def _number() -> int | None:
    """Return the trial that the address names; None where it names none, or no number."""
    wanted = st.query_params.get("trial", "")
    return int(wanted[:18]) if wanted.isascii() and wanted.isdigit() else None


def _pick(found: data.Trial) -> None:
    """Let another trial be chosen, and write the chosen one into the address."""
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
        sections: dict[str, Callable[[data.Trial], None]] = {
            "Curves": _curves,
            "Parameters": _parameters,
            "Evaluations": _evaluations,
            "Run and files": _run,
            "Run it again": _again,
        }
        chosen = st.segmented_control(
            "Section",
            list(sections),
            default="Curves",
            required=True,
            key="section",
            bind="query-params",
            label_visibility="collapsed",
        )
        sections[chosen or "Curves"](found)


def _head(found: data.Trial) -> None:
    record = found.record
    progress = record.steps / record.total_steps if record.total_steps else 0.0
    shown = {
        "State": found.outcome,
        "Deciding value": "none" if record.value is None else f"{record.value:.4g}",
        "Place": "unranked" if found.place is None else f"{found.place} of {found.complete}",
        "Steps": f"{record.steps:,} of {record.total_steps:,}" if record.total_steps else f"{record.steps:,}",
        "Minutes": f"{record.train_seconds / 60:.1f}",
    }
    with st.container(horizontal=True):
        for label, value in shown.items():
            st.metric(label, value, border=True, width=max(130, 40 + 14 * len(value)))
    if found.running:
        st.progress(min(1.0, progress), text="running; this page follows it")
    lines = [f"why it ended: {found.reason}"] if found.reason else []
    lines += [f"{how} trial {number}" for how, number in found.relations]
    lines += [home.clean(f"registered as {name} v{version}") for name, version in found.versions]
    if lines:
        st.text("\n".join(lines))


def _curves(found: data.Trial) -> None:
    points = data.curve(found)
    if points.empty:
        st.info("It has reported nothing yet.")
        return
    _judged(found, points)
    st.subheader("Training")
    left, right = st.columns([2, 1])
    over = left.segmented_control("Over", list(AXES), default="step", key="curve over", required=True)
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
        f"Gaps: not finite. Epochs and tokens are spread evenly over the steps. Of long curves "
        f"{charts.MOST_POINTS:,} points are drawn. Smoothing is an exponential moving average."
    )


def _judged(found: data.Trial, points: pd.DataFrame) -> None:
    """Show the deciding metric on the field of the others, and what the pruner decided."""
    st.subheader("The deciding metric, and the pruner")
    band, of, out_of = data.field(found)
    pruning = data.pruning(found)
    decisions = data.compared(pruning)
    own = points[points["metric"] == found.of.metric]
    ended = found.outcome if found.outcome in ("pruned", "diverged", "failed", "interrupted", "paused") else ""
    parts.figure(
        charts.judged(own, band, found.of.metric, () if pruning.never else data.rungs(found), decisions, ended),
        "deciding",
    )
    sample = f"a sample of {of} of the {out_of}" if of < out_of else f"the {of}"
    st.caption(f"Grey: {sample} other trials of the same length, at equal progress: the median and the middle half.")
    st.text(f"pruner: {pruning.pruner}")
    for judgement in pruning.judgements:
        st.text(judgement.words)
    if pruning.never is not None:
        st.text(f"The pruner had no say: {pruning.never}.")
    elif not pruning.agrees:
        st.text(
            "What the pruner decided does not follow from the stored numbers alone: a person stopped the trial, or "
            "its reports were stored too coarsely in time."
        )
    elif not pruning.judgements:
        st.text("It was never judged: it has not come to a point where its pruner compares trials.")
    if not decisions.empty:
        parts.table(decisions)


def _parameters(found: data.Trial) -> None:
    parts.table(data.parameters(found))
    beside = "" if found.best is None else " beside those of the best single trial"
    st.caption(f"Its hyperparameters{beside}, and what the study searched. Those that differ come first.")


def _evaluations(found: data.Trial) -> None:
    splits = data.splits(found)
    if not splits:
        st.info("It was not scored: a study scores its best trials on the test split when its search has ended.")
        return
    left, right = st.columns(2)
    split = left.selectbox("Split", splits, format_func=home.clean)
    scores = data.scores(found, split)
    metric = right.selectbox("Examples by", list(scores["metric"]), format_func=home.clean)
    parts.table(scores)
    st.caption("Scores with bootstrap 95 % intervals, and the paired difference to the base model.")
    examples = data.examples(found, split, metric)
    if examples.empty:
        st.info("No examples are kept of this trial.")
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
        st.info("There is none.")
        return
    table = chosen[["example", "won", "base score", "trial score", "prompt", "reference", "trial"]]
    row = chosen.iloc[parts.selected(table, key=f"examples {kind}") or 0]
    st.caption(f"Example {row['example']}; click the box before another row to see it whole.")
    parts.texts(prompt=row["prompt"], reference=row["reference"])
    marked.side_by_side(
        [("base model", row["base model"]), (f"trial {found.number}", row["trial"])], against=row["base model"]
    )


def _run(found: data.Trial) -> None:
    left, right = st.columns(2)
    with left:
        st.subheader("Device and cost")
        parts.table(data.facts(found))
    with right:
        st.subheader("Files")
        files = data.files(found)
        if files.empty:
            st.info("Its folder is gone, or not on this machine.")
        else:
            parts.table(files)
    st.subheader("Events")
    events = data.events(found)
    if events.empty:
        st.caption("Nothing was noted of this trial.")
    else:
        parts.table(events)
    for name, text in data.logs(found).items():
        st.subheader("End of a log")
        st.text(name)
        st.code(text or " ", language=None, wrap_lines=True, height=360)


def _again(found: data.Trial) -> None:
    begun_from = data.initial(found)
    st.subheader("As a new trial of the same study")
    st.code(data.clone_command(found), language=None, wrap_lines=True)
    st.caption(
        "The running or resumed study takes it up with a seed of its own; on the Control page it can be changed."
    )
    if begun_from is not None:
        st.caption(f"This trial began from the weights of trial {begun_from}, and so does the new one.")
    st.subheader("Alone, as a study of its own")
    try:
        text = data.study_file(found)
    except home.SweeperError as error:
        st.info("It cannot be written as a study file.")
        st.text(home.said(error))
    else:
        st.download_button(
            "This configuration as a study file",
            text,
            file_name=data.file_name(found),
            mime="application/yaml",
            icon=":material/download:",
            on_click="ignore",
        )
        st.code(data.run_command(found), language=None, wrap_lines=True)
        st.caption("Every value is fixed, one trial, on the rows and the base model that this one had.")
        if begun_from is not None:
            st.caption(f"It begins at the base model, and not from the weights of trial {begun_from}: no repetition.")
        with st.expander("The study file"):
            st.code(text, language=None, wrap_lines=True)
    st.subheader("With TRL alone")
    command = data.export_command(found)
    if command is None:
        st.caption("A recipe is exported from a registered version, and none was registered from this trial.")
    else:
        st.code(command, language=None, wrap_lines=True)
        anew = "" if begun_from is None else f", from the base model instead of the weights of trial {begun_from}"
        st.caption(f"Writes a script and a configuration that train this adapter again without sweeper{anew}.")


page()
