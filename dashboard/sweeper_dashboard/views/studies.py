"""The Studies page: every study of the home with its state, results and cost."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sweeper_dashboard.data import home
from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import editing, parts

REFRESH_S = 5
_COLUMNS = {
    "study": st.column_config.TextColumn(width="medium", pinned=True),
    "progress": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1, width="small"),
    "course": st.column_config.LineChartColumn("best so far", width="small"),
    "best": st.column_config.NumberColumn(format="%.4g"),
    "test": st.column_config.NumberColumn(
        "test score", format="%.3f", help="The winning trial's score on the first test metric."
    ),
    "base": st.column_config.NumberColumn(
        "base model", format="%.3f", help="The base model's score on the same examples."
    ),
    "device-hours": st.column_config.NumberColumn(format="%.2f"),
    "million tokens": st.column_config.NumberColumn(format="%.2f"),
    "tags": st.column_config.ListColumn(),
}


def page() -> None:
    """Show every study; selected ones can be opened, tagged or archived."""
    st.title("Studies")
    with parts.explained():
        editing.outcome()
        running = any(study.running for study in data.studies())
        st.fragment(_list, run_every=REFRESH_S if running else None)()


def _list() -> None:
    with parts.explained():
        found = data.studies()
        if parts.empty_home(found):
            return
        _totals(found)
        shown = _filtered(found)
        if not shown:
            st.info("No studies match these filters.")
            return
        rows = pd.DataFrame([_row(study) for study in shown])
        picked = st.dataframe(
            rows,
            key="studies",
            hide_index=True,
            column_config=_COLUMNS,
            placeholder="",
            on_select="rerun",
            selection_mode=["multi-row", "single-cell"],
            height=min(600, 40 + 35 * len(rows)),
        ).selection
        st.caption(
            "Click a study to open it, or tick its box to tag or archive it. The best of many trials is partly luck."
        )
        if picked.cells and picked.cells[0][0] < len(shown):
            st.switch_page("views/study.py", query_params={"study": shown[picked.cells[0][0]].name})
        chosen = [shown[place] for place in picked.rows if place < len(shown)]
        if chosen:
            _actions(chosen)


def _totals(found: list[data.StudyProgress]) -> None:
    parts.metrics(
        {
            "Studies": f"{len(found):,}",
            "Running": f"{sum(study.running for study in found):,}",
            "Trials": f"{sum(sum(study.outcomes.values()) for study in found):,}",
            "Device-hours": f"{sum(study.train_seconds for study in found) / 3600:,.1f}",
            "Training tokens": _large(sum(study.tokens for study in found)),
        }
    )


def _large(count: int) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:,}"


def _filtered(found: list[data.StudyProgress]) -> list[data.StudyProgress]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input("Search", key="search", bind="query-params", placeholder="name or tag", width=220)
        states = st.pills(
            "State",
            [state.value for state in data.StudyState],
            selection_mode="multi",
            key="state",
            bind="query-params",
        )
        known = sorted({tag for study in found for tag in study.tags})
        tags = st.multiselect("Tags", known, format_func=home.clean, key="tags", width=240)
        archived = st.toggle("Archived", key="archived", bind="query-params")
    needle = (words or "").strip().casefold()
    return [
        study
        for study in found
        if study.archived == archived
        and (not states or study.state.value in states)
        and set(tags) <= set(study.tags)
        and any(needle in text.casefold() for text in (study.name, *study.tags))
    ]


def _row(study: data.StudyProgress) -> dict[str, object]:
    proof = study.proof
    return {
        "study": home.clean(study.name),
        "state": study.state.value,
        "progress": min(1.0, study.done / max(1, study.n_trials)),
        "trials": f"{study.done:,} of {study.n_trials:,}",
        "time left": None if study.eta_s is None else data.remaining(study.eta_s),
        "metric": study.metric,
        "best": study.best,
        "course": list(study.best_so_far),
        "test": None if proof is None else proof.score,
        "base": None if proof is None else proof.base,
        "device-hours": study.train_seconds / 3600,
        "million tokens": study.tokens / 1e6,
        "tags": [home.clean(tag) for tag in study.tags],
        "started (UTC)": study.started_at,
        "ended (UTC)": study.ended_at,
    }


def _actions(chosen: list[data.StudyProgress]) -> None:
    """Offer to tag or archive the selected studies."""
    names = [study.name for study in chosen]
    archived = all(study.archived for study in chosen)
    common = [tag for tag in chosen[0].tags if all(tag in study.tags for study in chosen)]
    with st.container(border=True):
        st.text("Selected: " + ", ".join(home.clean(name) for name in names))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            tags = st.text_input(
                "Tags, separated by commas" if len(chosen) == 1 else "Tags shared by all of them, separated by commas",
                value=", ".join(common),
                key=f"tags of {names}",
                disabled=editing.refusal() is not None,
                width=320,
            )
            if editing.button("Save tags", icon=":material/label:"):
                given = [tag for tag in tags.split(",") if tag.strip()]
                editing.act(lambda actor: data.tag(names, given, actor, instead_of=common))
            word, icon = ("Unarchive", ":material/unarchive:") if archived else ("Archive", ":material/archive:")
            if editing.button(word, icon=icon):
                editing.act(lambda actor: data.archive(names, archived=not archived, actor=actor))


page()
