"""The command line `lrgls`: a command is a file."""

from lrgls_dask.cli.main import main

__all__ = ["main"]
