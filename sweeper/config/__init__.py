"""What a study is: frozen values, validated at the declaration; imports neither torch nor optuna."""
