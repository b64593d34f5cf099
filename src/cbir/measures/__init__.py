"""Measures, TREC files and significance tests: arrays and files only."""
