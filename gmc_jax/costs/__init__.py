"""Costs: what is sent, and how long it takes."""
