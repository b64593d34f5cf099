"""Trains neural networks; the only part that imports torch (extra `train`)."""
