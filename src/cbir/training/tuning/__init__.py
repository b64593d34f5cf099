"""Searches hyper-parameters with Ray Tune: the search space, the trials, and the run as a whole."""
