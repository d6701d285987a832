"""Everything that can be wrong with a recipe, found before a weight is read in full."""
