"""Scripts that measure, each with a command line; see README.md beside them."""
