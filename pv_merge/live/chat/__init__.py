"""Base and mix side by side on a terminal."""
