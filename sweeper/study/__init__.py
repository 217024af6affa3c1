"""A study from its file to its registered winner: resolve, validate, run, resume, reproduce, evaluate."""
