"""Graphs as data, in NumPy: which workers receive from which."""
