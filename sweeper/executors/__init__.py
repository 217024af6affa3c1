"""Where trials run: one small protocol, one file an implementation."""
