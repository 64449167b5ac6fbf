"""The target's data: splits, checks, preprocessing."""
