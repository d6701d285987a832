"""The merge method as stock mergekit knows it."""
