"""One study: where it stands, and what it found, section by section."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import curves, final, found, parts, schedule, selection

REFRESH_S = 5
SECTIONS = {
    "Overview": found.overview,
    "Curves": curves.section,
    "Parameters": found.parameters,
    "Schedule": schedule.section,
    "Scores": final.scores,
    "Texts": final.texts,
    "Study file": final.origin,
}


def page() -> None:
    """Show the study that the address names, or the latest; refresh while it runs."""
    st.title("Study")
    with parts.explained():
        name = parts.chosen_study(data.study_names(), selection.PARAMETER)
        if name is None:
            st.info("No study has been run in this home yet.")
            return
        running = data.study(name).standing.running
        st.fragment(_study, run_every=REFRESH_S if running else None)(name, running)


def _study(name: str, was_running: bool) -> None:
    with parts.explained():
        study = data.study(name)
        if study.standing.running != was_running:
            st.rerun()
        _standing(study)
        section = st.segmented_control(
            "Section",
            list(SECTIONS),
            default="Overview",
            required=True,
            key="section",
            bind="query-params",
            label_visibility="collapsed",
        )
        _selected(name)
        SECTIONS[section or "Overview"](study)


def _standing(study: data.Study) -> None:
    standing = study.standing
    best = "none yet" if standing.best is None else f"{standing.best:.4g}"
    shown = {
        "State": standing.state.value,
        "Trials": f"{standing.done:,} of {standing.n_trials:,}",
        "Best single value": best,
        "Epochs trained": f"{standing.epochs:,.1f}" + (f" of {standing.max_epochs:g}" if standing.max_epochs else ""),
        "Device-hours": f"{standing.train_seconds / 3600:,.2f}",
        "Time left": "–" if standing.eta_s is None else data.remaining(standing.eta_s),
    }
    with st.container(horizontal=True):
        for label, value in shown.items():
            st.metric(label, value, border=True, width=max(130, 40 + 14 * len(value)))
    st.progress(min(1.0, standing.done / max(1, standing.n_trials)))
    st.text("\n".join(_facts(study)))


def _facts(study: data.Study) -> list[str]:
    standing = study.standing
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in standing.outcomes.items()) or "no trial yet"
    lines = [f"{outcomes}; decided by {standing.metric} ({standing.direction}) on the validation split"]
    if standing.objectives:
        lines.append(f"further objectives, so there is no single best: {', '.join(standing.objectives)}")
    if standing.goal is not None:
        told = study.events.loc[study.events["kind"] == "goal", "message"]
        lines.append(told.iloc[-1] if len(told) else f"goal: {standing.metric} of {standing.goal:g}")
    if standing.timeout_s:
        lines.append(f"no trial starts later than {standing.timeout_s / 60:g} minutes into a run")
    if standing.proof is not None:
        lines.append(parts.proof(standing.proof))
    if standing.state is data.StudyState.FINISHED and not study.registered:
        lines.append("no adapter of this study is registered")
    return lines + [f"registered as {version} from trial {number}" for version, number in study.registered]


def _selected(name: str) -> None:
    """Show which trials are picked, and what can be done with them."""
    numbers = selection.selected()
    if not numbers:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        shown = ", ".join(map(str, numbers[:12])) + (", …" if len(numbers) > 12 else "")
        st.text(f"Picked: trial{'s' * (len(numbers) > 1)} {shown}", width="content")
        if len(numbers) == 1:
            query = {"study": name, "trial": str(numbers[0])}
            parts.link("Open the trial", "trial", query, icon=":material/target:")
        elif len(numbers) <= 8:
            query = {"subjects": ",".join(f"{name}:{number}" for number in numbers)}
            parts.link("Compare them", "compare", query, icon=":material/compare_arrows:")
        st.button("Pick none", on_click=selection.clear, icon=":material/close:", type="tertiary")


page()
