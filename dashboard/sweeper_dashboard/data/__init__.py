"""Data of the pages, and the changes they make: the only folder of the dashboard that calls sweeper.

Every text returned is free of control characters, but still text of users and models: pages show it letter by letter.
"""
