"""Simulated time. NumPy alone."""
