"""Graphs as data: who hears whom. NumPy alone."""
