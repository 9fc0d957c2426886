"""Rows whose responses have holes: kernels over what each row shows, patterns, the loop, what follows from a fit."""
