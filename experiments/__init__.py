"""Experiments with `gmc_jax`; `python -m experiments --help` lists the commands."""
