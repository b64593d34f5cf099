"""Trains neural networks; the only package that imports torch (extra `train`)."""
