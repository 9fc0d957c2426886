"""Which equation uses which column, and what is held or asked of the coefficients: restrictions and hypotheses."""
