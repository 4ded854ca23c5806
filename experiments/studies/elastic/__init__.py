"""Resuming with another number of workers."""
