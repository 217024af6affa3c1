"""sweeper: hyperparameter search and experiment management for LLM fine-tuning."""

__version__ = "0.1.0"
