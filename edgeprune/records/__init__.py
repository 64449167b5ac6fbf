"""Frozen dataclasses of what the program makes. They hash, and they are never half changed."""
