"""Execution: one worker's step, run by all workers."""
