"""Searching: a query in, ranked hits out; steps before and after the first search."""
