"""How long gradients take: what `gmc_jax.timelines` start from, NumPy alone."""

from __future__ import annotations

import pathlib
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax.utils import checks

Pace: TypeAlias = NDArray[np.float64]
"""Seconds that each gradient takes, [workers, gradients]; after the last it repeats."""


def constant(workers: int, seconds: float = 1.0) -> Pace:
    """All gradients take as long.

    Args:
      workers: their number.
      seconds: that each gradient takes, greater than 0.
    """
    checks.positive_int(workers=workers)
    checks.known(seconds=seconds)
    checks.positive(seconds=seconds)
    return np.full((workers, 1), float(seconds))


def straggler(
    workers: int, factor: float, seconds: float = 1.0, straggler: int = 0
) -> Pace:
    """One worker takes `factor` times as long as the others.

    Args:
      workers: their number.
      factor: greater than 0.
      seconds: that a gradient of the others takes, greater than 0.
      straggler: which worker it is, from 0.

    Raises:
      ValueError: if an argument is out of its range.
    """
    checks.known(factor=factor)
    checks.positive(factor=factor)
    checks.nonnegative_int(straggler=straggler)
    pace = constant(workers, seconds)
    if straggler >= workers:
        raise ValueError(
            f"`straggler` must be one of the workers, from 0 to {workers - 1}, but is "
            f"{straggler}."
        )
    pace[straggler] *= factor
    return pace


def random(
    workers: int, gradients: int, spread: float, seconds: float = 1.0, seed: int = 0
) -> Pace:
    """Log-normal seconds around a median.

    Args:
      workers: their number.
      gradients: of each worker, before its seconds repeat.
      spread: the deviation of the logarithm, at least 0.
      seconds: the median, greater than 0.
      seed: of the draws, at least 0.

    Raises:
      ValueError: if an argument is out of its range.
    """
    checks.positive_int(workers=workers, gradients=gradients)
    checks.known(spread=spread, seconds=seconds)
    checks.nonnegative(spread=spread)
    checks.positive(seconds=seconds)
    checks.nonnegative_int(seed=seed)
    draw = np.random.default_rng(seed)
    return seconds * np.exp(spread * draw.normal(size=(workers, gradients)))


def recorded(trace: ArrayLike | str | pathlib.Path) -> Pace:
    """A trace: an array [workers, gradients] of seconds, or a text file of its rows.

    Raises:
      TypeError: if it is not made of numbers.
      ValueError: if it is not a table of finite seconds greater than 0.
    """
    if isinstance(trace, str | pathlib.Path):
        trace = np.loadtxt(trace, ndmin=2)
    return given("trace", trace)


def given(name: str, seconds: ArrayLike) -> Pace:
    """An argument as a pace; else TypeError or ValueError."""
    try:
        pace = np.asarray(seconds, float)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be numbers of seconds, [workers, gradients], but is "
            f"{checks.shown(seconds)}."
        ) from None
    if pace.ndim != 2 or not pace.size or not ((pace > 0) & np.isfinite(pace)).all():
        raise ValueError(
            f"`{name}` must have a row for every worker, of finite seconds greater "
            f"than 0 for each of its gradients, but is of shape {pace.shape}"
            + (f", from {pace.min()} to {pace.max()}." if pace.size else ".")
        )
    return pace
