"""Costs: the bytes that workers send, and the seconds that this takes."""
