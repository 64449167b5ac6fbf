"""Run folders: steps that are kept by their inputs' digest, and an event log."""
