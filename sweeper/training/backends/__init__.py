"""Training backends, one per file: changes to loading the base model, attaching the adapter and training."""
