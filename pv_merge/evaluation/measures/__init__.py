"""What can be measured of a model, one file each."""
