"""One file a backend: what it changes in loading the base model, attaching the adapter and training."""
