"""Training: labelled images, held-out splits, tuning and model fitting."""
