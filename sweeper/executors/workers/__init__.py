"""Worker executors: processes per GPU or Ray actors that run trials of one study."""
