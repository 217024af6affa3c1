"""A reward of one's own, for studies/grpo.yaml and studies/rloo.yaml."""

from difflib import SequenceMatcher


def closeness(prompts, completions, reference, **columns):
    """Return how much of the right answer each answer has in the right order: 1 for all of it, 0 for nothing."""
    pairs = zip(completions, reference, strict=True)
    return [SequenceMatcher(None, text.strip(), right.strip()).ratio() for text, right in pairs]
