"""All studies of the home."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from sweeper_dashboard.data import home
from sweeper_dashboard.data import studies as data
from sweeper_dashboard.views import parts

REFRESH_S = 5


def page() -> None:
    """Show every study with its state; a click on a row opens it."""
    st.title("Studies")
    with parts.explained():
        running = any(study.running for study in data.studies())
        st.fragment(_list, run_every=REFRESH_S if running else None)()


def _list() -> None:
    with parts.explained():
        found = data.studies()
        if not found:
            st.info("No study has been run in this home yet.")
            return
        chosen = parts.selected(pd.DataFrame([_row(study) for study in found]), key="studies")
        st.caption("Click the box before a row to open its study. The best value is the best of many, so it is lucky.")
        if chosen is not None:
            st.switch_page("views/study.py", query_params={"study": found[chosen].name})


def _row(study: data.Standing) -> dict[str, object]:
    return {
        "study": home.clean(study.name),
        "state": study.state.value,
        "trials": f"{study.done} of {study.n_trials}",
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in study.outcomes.items()),
        "metric": study.metric,
        "best": study.best,
        "training minutes": study.train_seconds / 60,
        "started (UTC)": study.started_at,
        "ended (UTC)": study.ended_at,
    }


page()
