"""Benchmarks: ratios and medians of commands run in turn, never single absolute times."""
