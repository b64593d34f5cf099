"""Classic image features as pure functions: pixels in, arrays out, no model and no state."""
