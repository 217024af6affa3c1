"""Looking after a home: what is left over, what does not agree, and a copy of it all; nothing here trains."""
