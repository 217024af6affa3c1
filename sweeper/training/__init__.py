"""One trial from a plain ``TrialSpec``: knows TRL, PEFT and bitsandbytes, and nothing of the search."""
