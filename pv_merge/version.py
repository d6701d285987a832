"""The version of this package, which PyTorch's import may ask for: nothing is imported here."""

__version__ = "0.1.0"
