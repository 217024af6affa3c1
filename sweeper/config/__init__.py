"""Configuration: frozen values, validated where they are declared; imports neither torch nor Optuna."""
