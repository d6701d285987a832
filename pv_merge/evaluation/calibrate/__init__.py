"""A suggested eta."""
