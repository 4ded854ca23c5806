"""Checkpoints: states on disk, whole or not there."""
