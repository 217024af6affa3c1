"""Maintenance of a home: garbage collection, consistency checks, backups and migration; nothing here trains."""
