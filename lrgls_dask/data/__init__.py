"""Data in and out: arrays, variables and stores of the user, their labels, files of this library."""
