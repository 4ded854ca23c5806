"""Where a pattern takes as long as the dense all-reduce."""

from __future__ import annotations

import math
from collections.abc import Callable

from gmc_jax.costs.patterns import Load

_TOLERANCE = 1e-4  # The relative error of a break-even ratio.


def faster_between(
    load: Load, dense: Load, latency: float, step_time: float
) -> tuple[float, float] | None:
    """The bandwidths at which a load takes fewer seconds than the dense all-reduce.

    What is late takes the longer of two times: none if all of it passes beside the
    computation, and else what is left of it. So the load must take fewer in both cases.
    """
    now, late = load.traffic, load.late
    waits = load.encoding + (now.hops - dense.traffic.hops) * latency
    cases = [
        _faster(
            waits - late.hops * latency, dense.traffic.bytes - now.bytes + late.bytes
        ),
        _faster(waits - load.beside * step_time, dense.traffic.bytes - now.bytes),
    ]
    bounds = [case for case in cases if case is not None]
    if len(bounds) < len(cases):
        return None
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    return (low, high) if low < high else None


def _faster(waits: float, saved: float) -> tuple[float, float] | None:
    """The bandwidths at which saving bytes outweighs waiting for some seconds more."""
    if waits < 0:
        return (0.0 if saved >= 0 else saved / waits, math.inf)
    return (0.0, saved / waits if waits else math.inf) if saved > 0 else None


def largest_ratio(excess: Callable[[float], float], least: float) -> float:
    """Finds the largest ratio whose excess, which never falls, is below 0.

    The excess is nearly linear in the ratio. So each round draws a line through the
    ends of the bracket. It tries both sides of the ratio at which the line crosses 0,
    and then the geometric mean of the ends.
    """
    low, high = least, 1.0
    below, above = excess(low), excess(high)
    if below >= 0:
        return 0.0
    if above < 0:
        return 1.0
    while high > low * (1 + _TOLERANCE):
        crossing = low + (high - low) * below / (below - above)
        beside = [crossing * (1 + side * _TOLERANCE / 3) for side in (-1, 1)]
        for ratio in (*beside, math.sqrt(low * high)):
            if low * (1 + _TOLERANCE) < high and low < ratio < high:
                value = excess(ratio)
                if value < 0:
                    low, below = ratio, value
                else:
                    high, above = ratio, value
    return low
