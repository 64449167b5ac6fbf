"""Taking channels and weights out of a model."""
