"""Figures from frames, pure functions: no Streamlit, no sweeper."""
