"""The registered adapter versions, where each came from, and its scores."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from sweeper_dashboard.data import adapters as data
from sweeper_dashboard.views import parts


def page() -> None:
    """Show every version, and the lineage of the one that is picked."""
    st.title("Adapters")
    with parts.explained():
        found = data.adapters()
        if not found:
            st.info("No adapter is registered: a study registers its winner when it beats the base model.")
            return
        chosen = found[parts.selected(pd.DataFrame([adapter.row for adapter in found]), key="adapters") or 0]
        st.subheader("Lineage and scores")
        st.text(f"{chosen.row['adapter']} v{chosen.row['version']}")
        if not chosen.scores.empty:
            parts.table(chosen.scores)
        parts.table(chosen.lineage)


page()
