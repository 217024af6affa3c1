"""Recommended search ranges as data, each with its source, and the space of a study made from them."""
