"""Measuring latency on the device: how long, how sure, and whether the run was disturbed."""
