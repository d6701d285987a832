"""Mixes by name, for any serving engine: names, adapters, cache, shelf."""
