"""Evidence by what models write: a grid of η, and what a user would pick instead of vectors."""
