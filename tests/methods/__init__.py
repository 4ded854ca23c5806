"""Tests of `gmc_jax.methods`."""
