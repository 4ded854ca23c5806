"""Benchmarks: what compression costs, and what simulating costs."""
