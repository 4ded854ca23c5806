"""Transforms: the optax transformations that methods are made of."""
