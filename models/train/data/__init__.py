"""Training data: its schema, checks, splits, and ways to make more of it. Needs no torch."""
