"""From policies to a vector, from a recipe to a model or a mix."""
