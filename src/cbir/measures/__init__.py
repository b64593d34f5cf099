"""TREC files and measures, over arrays, runs and qrels only."""
