"""Paces: how many seconds each gradient takes. Timelines are computed from them."""

from __future__ import annotations

import pathlib
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax.utils import checks

Pace: TypeAlias = NDArray[np.float64]
"""Seconds of each gradient, [workers, gradients]; after the last they repeat."""


def constant(workers: int, seconds: float = 1.0) -> Pace:
    """Makes a pace in which all gradients take equally long.

    Args:
      workers: the number of workers, at least 1.
      seconds: how long each gradient takes, greater than 0.

    Returns:
      A pace, [workers, 1].

    Raises:
      ValueError: if an argument is out of its range.
    """
    checks.positive_int(workers=workers)
    checks.known(seconds=seconds)
    checks.positive(seconds=seconds)
    return np.full((workers, 1), float(seconds))


def straggler(
    workers: int, factor: float, seconds: float = 1.0, straggler: int = 0
) -> Pace:
    """Makes a pace in which one worker takes `factor` times as long as the others.

    Args:
      workers: the number of workers, at least 1.
      factor: how many times as long, greater than 0.
      seconds: how long a gradient of the other workers takes, greater than 0.
      straggler: the index of the slow worker, counted from 0.

    Returns:
      A pace, [workers, 1].

    Raises:
      ValueError: if an argument is out of its range.
    """
    checks.known(factor=factor)
    checks.positive(factor=factor)
    checks.nonnegative_int(straggler=straggler)
    pace = constant(workers, seconds)
    if straggler >= workers:
        raise ValueError(
            f"`straggler` must be the index of a worker, from 0 to {workers - 1}, got "
            f"{straggler}."
        )
    pace[straggler] *= factor
    return pace


def random(
    workers: int, gradients: int, spread: float, seconds: float = 1.0, seed: int = 0
) -> Pace:
    """Makes a pace whose seconds are log-normal draws around a median.

    Args:
      workers: the number of workers, at least 1.
      gradients: how many draws each worker has before they repeat, at least 1.
      spread: the standard deviation of the logarithm, at least 0.
      seconds: the median, greater than 0.
      seed: the seed of the draws, at least 0.

    Returns:
      A pace, [workers, gradients].

    Raises:
      ValueError: if an argument is out of its range.
    """
    checks.positive_int(workers=workers)
    gradients = checks.whole(gradients=gradients)
    checks.known(spread=spread, seconds=seconds)
    checks.nonnegative(spread=spread)
    checks.positive(seconds=seconds)
    checks.nonnegative_int(seed=seed)
    draw = np.random.default_rng(seed)
    return seconds * np.exp(spread * draw.normal(size=(workers, gradients)))


def recorded(trace: ArrayLike | str | pathlib.Path) -> Pace:
    """Makes a pace from measured seconds.

    Args:
      trace: seconds, [workers, gradients], or the path of a text file with one row of
        numbers for each worker.

    Returns:
      The pace, [workers, gradients].

    Raises:
      TypeError: if `trace` holds something that is no number.
      ValueError: if `trace` is not a table of finite seconds greater than 0.
    """
    if isinstance(trace, str | pathlib.Path):
        trace = np.loadtxt(trace, ndmin=2)
    return as_pace("trace", trace)


def as_pace(name: str, seconds: ArrayLike) -> Pace:
    """Converts the argument of this name to a pace, or raises an error that names it.

    Raises:
      TypeError: if it holds something that is no number.
      ValueError: if it is not a table of finite seconds greater than 0.
    """
    try:
        pace = np.asarray(seconds, float)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must hold seconds, [workers, gradients], got "
            f"{checks.shown(seconds)}. Pass an array of numbers."
        ) from None
    if pace.ndim != 2 or not pace.size or not ((pace > 0) & np.isfinite(pace)).all():
        raise ValueError(
            f"`{name}` must hold finite seconds greater than 0, [workers, gradients], "
            f"got an array of shape {pace.shape}"
            + (f" with values from {pace.min()} to {pace.max()}." if pace.size else ".")
        )
    return pace
