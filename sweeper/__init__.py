"""sweeper: hyperparameter search and experiment management for LLM fine-tuning.

Everything public is here, and imported when it is first used:

    from pathlib import Path
    import sweeper

    study = sweeper.load_study(Path("studies/quickstart.yaml"))
    verdict = sweeper.run_study(study)

A study of several stages (``technique: rlhf``) is run by ``run_pipeline``, and gone on with by ``resume_pipeline``.

``__init__.pyi`` says the same to type checkers.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "StudyConfig": "sweeper.config.study",
    "SweeperError": "sweeper.errors",
    "check_study": "sweeper.check",
    "load_study": "sweeper.config.loader",
    "resume_pipeline": "sweeper.study.pipeline",
    "resume_study": "sweeper.study.run",
    "run_pipeline": "sweeper.study.pipeline",
    "run_study": "sweeper.study.run",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
