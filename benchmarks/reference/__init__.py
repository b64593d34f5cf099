"""Real architectures with random weights: what their own libraries make of images and texts."""
