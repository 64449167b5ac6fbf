"""What to try, in which order, and why not the rest."""
