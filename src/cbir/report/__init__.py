"""Reports of evaluations: a page that holds all it needs, and the same as Markdown."""
