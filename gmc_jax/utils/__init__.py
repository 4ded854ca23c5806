"""Helpers: checks, trees, programs, processes."""
