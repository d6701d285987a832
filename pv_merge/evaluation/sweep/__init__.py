"""A grid of eta: measured, tabulated, drawn."""
