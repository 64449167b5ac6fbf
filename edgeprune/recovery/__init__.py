"""What wins accuracy back after a cut, and what trains the dense model."""
