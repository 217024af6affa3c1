"""The pages and their navigation; ``sweeper dashboard`` starts it."""

from __future__ import annotations

import streamlit as st

from sweeper_dashboard import session
from sweeper_dashboard.data import home
from sweeper_dashboard.views import parts

PAGES = {
    "Search": [
        st.Page("views/studies.py", title="Studies", icon=":material/science:", default=True),
        st.Page("views/study.py", title="Study", icon=":material/monitoring:"),
        st.Page("views/trial.py", title="Trial", icon=":material/target:"),
        st.Page("views/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("views/control.py", title="Control", icon=":material/tune:"),
        st.Page("views/training_data.py", title="Data", icon=":material/dataset:", url_path="data"),
    ],
    "Adapters": [
        st.Page("views/adapters.py", title="Adapters", icon=":material/inventory_2:"),
        st.Page("views/playground.py", title="Playground", icon=":material/forum:"),
    ],
}

STYLE = ".stMainBlockContainer { padding: 3rem 2rem 4rem; } [data-testid=stSidebarHeader] { height: 2.5rem; }"
"""Smaller margins than Streamlit's, so that a laptop's screen shows a chart and a table."""

st.set_page_config(page_title="sweeper", layout="wide", initial_sidebar_state=220)
st.html(f"<style>{STYLE}</style>")
page = st.navigation(PAGES)
user = session.user()
with st.sidebar:
    st.caption("Home")
    st.text(home.home_folder())
    st.caption(f":material/person: {user.role}")
    st.text(home.clean(user.name))
    if user.signed_in:
        st.html('<a href="/logout" target="_self">Sign out</a>')
with parts.explained():
    page.run()
