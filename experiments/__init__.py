"""Experiments over `gmc_jax`: `python -m experiments --help` says what can be run."""
