"""Tests of `gmc_jax`, file by file, and of `experiments`."""
