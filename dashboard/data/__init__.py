"""All that the pages show and all that they change: the only folder of the dashboard that calls sweeper, a file a page.

Every text that leaves is free of control characters, but still text of users and models: pages show it as plain text.
"""
