"""Tests of `gmc_jax.compressors`."""
