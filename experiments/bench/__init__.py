"""Benchmarks of compression and of simulation."""
