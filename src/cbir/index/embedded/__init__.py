"""The embedded engine: SQLite is the source of truth; a checked vector cache serves searches."""
