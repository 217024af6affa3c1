"""Files: atomic writes, temporary files and checksums."""
