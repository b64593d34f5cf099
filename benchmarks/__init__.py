"""Measurements that the README quotes; `python -m benchmarks` prints all of them."""
