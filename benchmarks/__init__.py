"""The measurements quoted in the README and docs; `python -m benchmarks` prints the usual ones."""
