"""Holding a release to its budget: gates that judge from recorded evidence alone."""
