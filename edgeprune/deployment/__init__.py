"""Reaching devices: the inventory, connections to them, and files that arrive whole or not at all."""
