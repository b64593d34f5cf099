"""The benchmarks behind the README and docs; `python -m benchmarks` runs the usual ones."""
