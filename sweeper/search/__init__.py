"""The search: which configuration runs next, what is pruned, what is best; the only room that imports Optuna."""
