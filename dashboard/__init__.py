"""A read-only dashboard over a sweeper home; `streamlit run app.py` shows the home that ``SWEEPER_HOME`` names."""
