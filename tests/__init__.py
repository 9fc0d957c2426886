"""Tests of the library, in the rooms of the package, and benchmarks."""
