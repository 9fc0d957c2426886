"""What a fit will cost, priced before any read."""
