"""Measures, TREC files and significance tests, on arrays and files only."""
