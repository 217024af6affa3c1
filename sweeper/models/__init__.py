"""Base models: the catalogue, where a name is found, what its files say, and what it costs in memory."""
