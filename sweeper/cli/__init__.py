"""The command line: one file a command or group of commands, each parsing, calling and printing."""
