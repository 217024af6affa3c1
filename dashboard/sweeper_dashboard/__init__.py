"""The Streamlit dashboard of a sweeper home; ``SWEEPER_HOME`` names the home."""
