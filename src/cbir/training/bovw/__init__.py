"""Fits Bag-of-Visual-Words models: vocabularies, projections, heads (extra `bovw`)."""
