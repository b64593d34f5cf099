"""Classic image features and geometry as pure functions: pixels to arrays, without state."""
