"""Nobody gets anything of the dashboard before they have signed in, where signing in is asked for.

``gate.py`` stands before all of Streamlit, its websocket and files included; ``routes.py`` holds the pages that it lets
through; ``sessions.py`` says whose session a cookie is, for the gate and for the pages alike.
"""
