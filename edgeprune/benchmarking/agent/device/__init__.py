"""What runs on the device: Python 3.8, standard library, numpy and the runtime; nothing of edgeprune's."""
