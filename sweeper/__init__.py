"""sweeper: hyperparameter search and experiment management for LLM fine-tuning.

All public names are here, and imported on first use:

    from pathlib import Path
    import sweeper

    study = sweeper.load_study(Path("studies/quickstart.yaml"))
    result = sweeper.run_study(study)
    print(result.registered, result.comparison.to_base)

A study of several stages (``technique: rlhf``) is run by ``run_pipeline`` and resumed by ``resume_pipeline``.

``__init__.pyi`` declares the same names for type checkers.
"""

import os
from importlib import import_module

if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
    # Read when torch loads OpenMP. Threads that spin while they wait take the cores that the others need: beside other
    # work two threads are then slower than one (tests/benchmarks/threads.py).
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

__version__ = "0.1.0"

_MODULES = {
    "StudyConfig": "sweeper.config.study",
    "SweeperError": "sweeper.errors",
    "check_study": "sweeper.check.report",
    "load_study": "sweeper.config.loader",
    "resume_pipeline": "sweeper.study.pipeline",
    "resume_study": "sweeper.study.run",
    "run_pipeline": "sweeper.study.pipeline",
    "run_study": "sweeper.study.run",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
