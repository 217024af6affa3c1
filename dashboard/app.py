"""The router: which pages there are. Start it with ``streamlit run app.py``."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard import data
from sweeper_dashboard.views import parts

st.set_page_config(page_title="sweeper", layout="wide")
page = st.navigation(
    [
        st.Page("views/studies.py", title="Studies", default=True),
        st.Page("views/study.py", title="Study"),
        st.Page("views/adapters.py", title="Adapters"),
    ]
)
with st.sidebar:
    st.caption("Home")
    st.text(data.home_folder())
with parts.explained():
    page.run()
