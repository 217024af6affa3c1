"""The packed executor: many trials trained in one pass over a shared base model."""
