"""The embedded engine: SQLite holds the truth, a checked vector cache answers searches."""
