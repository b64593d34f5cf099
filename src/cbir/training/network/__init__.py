"""Training neural networks: the only part that imports torch."""
