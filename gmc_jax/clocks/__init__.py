"""Simulated time, in NumPy: paces of gradients, links, and timelines of events."""
