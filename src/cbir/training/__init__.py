"""Training: labelled images, splits, choices on held-out images, and models fitted to them."""
