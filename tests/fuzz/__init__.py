"""Random inputs, of every kind that there is, against dense textbook answers. `python -m tests.fuzz --help`."""
