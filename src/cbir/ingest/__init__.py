"""Sources into an index: read, decode, describe, commit; and index into index."""
