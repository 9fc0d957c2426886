"""N rows as q + K + 1 equivalent ones: made in one pass, merged, kept by parts."""
