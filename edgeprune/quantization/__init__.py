"""From a float32 artifact to an INT8 one, after training."""
