"""A model in memory, at any eta."""
