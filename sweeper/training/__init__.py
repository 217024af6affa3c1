"""One trial from a plain ``TrialSpec``: knows TRL, PEFT and bitsandbytes, and nothing of the search."""

import logging

# Before bitsandbytes is imported: it tells of a missing CPU kernel that it falls back from by itself.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
