"""Base models: the catalogue, the resolution of names, facts from files, and memory estimates."""
