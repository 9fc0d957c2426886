"""Factors that vary in time: segments of rows, the loop over them, the labelled result."""
