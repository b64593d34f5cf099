"""Search: turns a query into ranked hits, with steps before and after the first search."""
