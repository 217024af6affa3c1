"""Training of one trial from a plain ``TrialSpec``, with TRL, PEFT and bitsandbytes; knows nothing of the search."""

import logging

# Before bitsandbytes is imported: it warns of a missing CPU kernel, for which it has a fallback.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
