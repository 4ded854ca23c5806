"""Warnings at the caller's line."""

import inspect
import warnings

_NOT_USERS = ("gmc_jax.", "jax.", "optax.")


def warn(doubt: str) -> None:
    """A warning at the line of the user's that leads here."""
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith(_NOT_USERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(doubt, stacklevel=level)
