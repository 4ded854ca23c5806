"""Majority votes with faulty workers."""
