"""Tests of `gmc_jax.channels`."""
