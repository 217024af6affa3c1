"""One file a technique: the TRL trainer that does the training."""
