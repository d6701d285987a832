"""What a model does: held-out pairs, refusals, reward models, capability. One file each."""
