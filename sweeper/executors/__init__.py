"""Executors: one small protocol, one file an implementation."""
