"""Majority votes with lying workers."""
