"""Classic image features and geometry, as pure functions from pixels to arrays."""
