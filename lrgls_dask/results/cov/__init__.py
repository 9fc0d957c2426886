"""Covariances of the coefficients: a file a kind, each a small frozen object that holds its options.

To add one: write its file with a subclass of `CovKind`, and enter it in `registry.KINDS`.
"""
