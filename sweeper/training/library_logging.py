"""Keep the libraries' own progress bars and notices off the terminal: sweeper shows its own."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quieten() -> None:
    """Silence what would break the live view or alarm without reason; errors still show."""
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
    warnings.filterwarnings("ignore", message="Adapter name 'ref' should not be contained")  # TRL's; it goes at once
    warnings.filterwarnings("ignore", message=".*Converting a tensor with requires_grad=True to a scalar.*")


def _is_no_word_about_the_cpu(record: logging.LogRecord) -> bool:
    """DeepSpeed, which TRL imports where it is installed, tells standard output that there is no GPU."""
    return not record.getMessage().startswith("Setting accelerator to CPU")


@contextmanager
def silent_about_positions() -> Iterator[None]:
    """Generate without a word of PEFT's: virtual tokens move the text, so it drops the positions worked out before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
        yield
