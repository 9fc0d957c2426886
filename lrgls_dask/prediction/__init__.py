"""What a fit says about rows, lazily: fitted values, intervals, conditional predictions, factor scores."""
