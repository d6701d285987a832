"""Formulas on tensors: the preference arithmetic, its measures, rounding and kernels. Knows no file."""
