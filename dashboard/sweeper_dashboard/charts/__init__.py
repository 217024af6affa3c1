"""Figures from frames: pure functions, without Streamlit or sweeper."""
