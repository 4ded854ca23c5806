"""Tests of `gmc_jax.transforms`."""
