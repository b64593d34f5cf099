"""Indexes: records and vectors of one spec, and nearest-neighbour search over them."""
