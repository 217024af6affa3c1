"""Real studies in real processes that are killed at random instants, and what must hold afterwards."""
