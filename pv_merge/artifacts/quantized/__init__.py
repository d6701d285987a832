"""Checkpoints whose weights are quantized: which format it is, and the weights out of it."""
