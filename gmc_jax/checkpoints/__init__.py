"""Checkpoints: states of training on disk, each complete or absent."""
