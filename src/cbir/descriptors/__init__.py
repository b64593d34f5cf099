"""Descriptors: images in, unit vectors out."""
