"""Descriptors: the contract, the models, and what turns images into unit vectors."""
