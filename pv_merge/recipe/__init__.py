"""A merge recipe: read, check, group, open."""
