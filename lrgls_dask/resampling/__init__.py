"""Rows summed apart and drawn again: folds of cross-validation, bootstrap replicates."""
