"""Sign-in: nothing of the dashboard is served to anyone who has not signed in, if sign-in is required.

``gate.py`` guards all of Streamlit, including its websocket and files; ``routes.py`` has the pages that are open to
everyone; ``sessions.py`` maps cookies to users, for the gate and for the pages.
"""
