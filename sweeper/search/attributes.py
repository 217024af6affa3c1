"""The names of the user attributes that the search stores with a trial in Optuna."""

from __future__ import annotations

KIND = "kind"
"""Enqueued, sampled or confirmation."""

ORDINAL = "ordinal"
"""Place among the trials of the same kind, from 0; a restarted trial keeps it."""

SEED = "seed"
"""The trial's own seed."""

CONFIRMS = "confirms"
"""Number of the trial that a confirmation repeats."""

RESTARTS = "restarts"
"""Number of the interrupted trial that this one starts again."""

ORDER = "order"
"""Number of the order by which a person asked for the trial; such trials come on top of the search's own."""

CLONES = "clones"
"""Number of the trial whose configuration, changed by hand, this one runs."""

INITIAL = "initial"
"""Number of the trial whose saved weights this one starts from."""

LENGTH = "length"
"""Epochs the trial trains for."""

WARMUP_END_PERCENT = "warmup_end_percent"
"""Where the learning-rate warmup ends, in per cent of the trial's training."""

OUTCOME = "outcome"
"""How it ended, in sweeper's terms."""

REASON = "reason"
"""Why it ended where it did."""

PAUSED = "paused"
"""Whether it waits at its rung."""

EPOCHS = "epochs_trained"
"""Passes over the training split, fractions counted."""

INTERRUPTED = "interrupted"
"""The reason of a trial that a dead process left behind."""

NOT_BEGUN = "not begun"
"""How the reason of a trial begins whose queued values are not of the space: it never had a row of its own."""

DEATHS = "deaths"
"""How many workers died in a row while they ran the trial, without a checkpoint in between."""

CHECKPOINT = "checkpoint"
"""The checkpoint that the trial had when a worker last died with it."""
