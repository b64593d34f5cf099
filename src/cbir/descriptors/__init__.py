"""Descriptors: the interface, the models, and the features behind the unit vectors."""
