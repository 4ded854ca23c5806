"""Named runs: one file each, with a docstring of command, time and expectation."""
