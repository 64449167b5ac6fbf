"""What a model is made of: channel groups, channel surgery, cost, weights on disk."""
