"""Majority vote with liars."""
