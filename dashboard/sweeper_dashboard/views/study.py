"""The Study page: the state of one study, and its results section by section."""

from __future__ import annotations

import streamlit as st

from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import parts, selection, study_results, study_search

REFRESH_S = 5
SECTIONS = {
    "Overview": study_search.overview,
    "Curves": study_search.curves,
    "Parameters": study_search.parameters,
    "Schedule": study_search.schedule,
    "Scores": study_results.scores,
    "Outputs": study_results.outputs,
    "Study file": study_results.origin,
}


def page() -> None:
    """Show the study in the address, or the latest; refresh while it runs."""
    st.title("Study")
    with parts.explained():
        name = parts.chosen_study(data.study_names(), selection.PARAMETER)
        if name is not None:
            running = data.study(name).standing.running
            st.fragment(_study, run_every=REFRESH_S if running else None)(name, running)


def _study(name: str, was_running: bool) -> None:
    with parts.explained():
        study = data.study(name)
        if study.standing.running != was_running:
            st.rerun()
        _standing(study)
        show = parts.section(SECTIONS)
        _selected(name)
        show(study)


def _standing(study: data.Study) -> None:
    standing = study.standing
    parts.metrics(
        {
            "State": standing.state.value,
            "Trials": f"{standing.done:,} of {standing.n_trials:,}",
            "Best single value": "none yet" if standing.best is None else f"{standing.best:.4g}",
            "Epochs trained": f"{standing.epochs:,.1f}"
            + (f" of {standing.max_epochs:g}" if standing.max_epochs else ""),
            "Device-hours": f"{standing.train_seconds / 3600:,.2f}",
            "Time left": "–" if standing.eta_s is None else data.remaining(standing.eta_s),
        }
    )
    st.progress(min(1.0, standing.done / max(1, standing.n_trials)))
    st.text("\n".join(_facts(study)))


def _facts(study: data.Study) -> list[str]:
    standing = study.standing
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in standing.outcomes.items()) or "no trials yet"
    lines = [f"{outcomes}; ranked by {standing.metric} ({standing.direction}) on the validation split"]
    if standing.objectives:
        lines.append(f"additional objectives, so there is no single best trial: {', '.join(standing.objectives)}")
    if standing.goal is not None:
        told = study.events.loc[study.events["kind"] == "goal", "message"]
        lines.append(told.iloc[-1] if len(told) else f"goal: {standing.metric} of {standing.goal:g}")
    if standing.timeout_s:
        lines.append(f"no trial starts more than {standing.timeout_s / 60:g} minutes into a run")
    if standing.proof is not None:
        lines.append(_proof(standing.proof))
    if standing.state is data.StudyState.FINISHED and not study.registered:
        lines.append("no adapter was registered from this study")
    return lines + [f"trial {number} is registered as {version}" for version, number in study.registered]


def _proof(found: data.Proof) -> str:
    """Return in words what the test split says of the best trial beside its base model."""
    words = f"test {found.metric}: trial {found.trial} {found.score:.3f}"
    if found.base is not None:
        words += f", base model {found.base:.3f}"
    if found.difference is not None and found.low is not None and found.high is not None:
        words += f" ({found.difference:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f})"
    return words


def _selected(name: str) -> None:
    """Show the selected trials, and links to what can be done with them."""
    numbers = selection.selected()
    if not numbers:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        shown = ", ".join(map(str, numbers[:12])) + (", …" if len(numbers) > 12 else "")
        st.text(f"Selected: trial{'s' * (len(numbers) > 1)} {shown}", width="content")
        if len(numbers) == 1:
            query = {"study": name, "trial": str(numbers[0])}
            parts.link("Open this trial", "trial", query, icon=":material/target:")
        elif len(numbers) <= 8:
            query = {"subjects": ",".join(f"{name}:{number}" for number in numbers)}
            parts.link("Compare these trials", "compare", query, icon=":material/compare_arrows:")
        st.button("Clear selection", on_click=selection.clear, icon=":material/close:", type="tertiary")


page()
