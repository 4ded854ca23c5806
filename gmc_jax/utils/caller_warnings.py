"""Warnings that point at the user's line."""

import inspect
import warnings

_LIBRARIES = ("gmc_jax.", "jax.", "optax.")


def warn_caller(message: str) -> None:
    """Warns at the innermost line of the stack outside gmc_jax, jax and optax."""
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
