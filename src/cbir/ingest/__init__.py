"""Indexes sources (read, decode, describe, commit), and copies indexes."""
