"""What the data answer, in memory or by passes, and who asks: the loop, selection, cross-validation, checkpoint."""
