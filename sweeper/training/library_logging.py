"""Silencing of the libraries' progress bars and notices: sweeper shows its own."""

from __future__ import annotations

import logging
import os
import warnings


def quieten() -> None:
    """Silence output that breaks the live view or alarms needlessly; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(_is_no_word_about_the_cpu)
    warnings.filterwarnings("ignore", message=".*'pin_memory' argument is set as true but no accelerator.*")
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
    warnings.filterwarnings("ignore", message="Adapter name 'ref' should not be contained")  # TRL's, removed at once
    warnings.filterwarnings("ignore", message=".*Converting a tensor with requires_grad=True to a scalar.*")


def _is_no_word_about_the_cpu(record: logging.LogRecord) -> bool:
    """DeepSpeed, which TRL imports if installed, prints that there is no GPU."""
    return not record.getMessage().startswith("Setting accelerator to CPU")
