"""What a step would take over a link, before anybody trains.

It plans the time of a step, not what a step is worth: how many more of them a method
needs where it sends less is not for a formula to say. Computation comes first, then
encoding, then the link; nothing overlaps, as nothing does in this library's steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gmc_jax.clocks.link import Link, check_link
from gmc_jax.core import Tree
from gmc_jax.costs.compression_cost import CPU_2_CORES, Encodings
from gmc_jax.costs.patterns import DENSE as DENSE
from gmc_jax.costs.patterns import Family, Load, candidates
from gmc_jax.costs.patterns import Pattern as Pattern
from gmc_jax.costs.patterns import Sync as Sync
from gmc_jax.costs.traffic import Traffic
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

_LARGEST_LEAF = 2**31 - 1  # Entries that int32 can address.
_TOLERANCE = 1e-4  # Of a break-even ratio, relative.


class Prediction(NamedTuple):
    """What a pattern would make of a step; of several kinds of steps, their mean.

    Attributes:
      name: of the pattern.
      ratio: the share of the entries that its messages hold; None for all.
      traffic: bytes that leave a worker, and hops that it waits for.
      compute: seconds of the step without the others.
      encoding: seconds of encoding and decoding.
      network: seconds on the link.
      longest: seconds of the longest step, in which all meetings fall.
      utilisation: bytes a second over the link's capacity, in [0, 1].
      speed_up: the dense step's seconds over this one's.
      faster_between: the bandwidths, in bytes a second, between which it is faster than
        dense: (0, b) where dense wins above b, None where it wins everywhere.
      break_even_ratio: the largest ratio at which it would still be faster than dense;
        0 for none, None for a pattern without a ratio to choose.
    """

    name: str
    ratio: float | None
    traffic: Traffic
    compute: float
    encoding: float
    network: float
    longest: float
    utilisation: float
    speed_up: float
    faster_between: tuple[float, float] | None
    break_even_ratio: float | None

    @property
    def seconds(self) -> float:
        """Of a step, in the mean."""
        return self.compute + self.encoding + self.network

    @property
    def busy(self) -> float:
        """The share of the time in which the link is at work, latencies included."""
        return self.network / self.seconds

    @property
    def breaks_even(self) -> bool:
        """Whether it is faster than dense."""
        return self.speed_up > 1


def predict(
    pattern: Pattern, parameters: int | Tree, workers: int, link: Link, step_time: float
) -> Prediction:
    """What one pattern would make of a step.

        seconds = step_time + encoding + hops * latency + bytes / bandwidth

    with the bytes and hops of `link_traffic`, a meeting every `period` steps counting
    for one in so many.

    Args:
      pattern: what meets how often through which channels, your own included.
      parameters: how many there are, in float32, or a tree of their shapes and dtypes.
      workers: their number, at least 1.
      link: each worker's, which carries `bandwidth` bytes a second both ways at once.
      step_time: seconds of computation in a step, greater than 0.

    Returns:
      Its time, the parts of it, and where it breaks even with the dense all-reduce.

    Raises:
      TypeError: if `pattern` is no pattern or `link` no link.
      ValueError: if a number is out of its range.

    Example:
      >>> import gmc_jax
      >>> from gmc_jax.costs.planning import Pattern, Sync
      >>> channel = gmc_jax.all_gather(gmc_jax.scaled_sign())
      >>> link = gmc_jax.timelines.Link(latency=1e-3, bandwidth=1.25e6)
      >>> pattern = Pattern("EF-signSGD", (Sync(channel),))
      >>> round(gmc_jax.planning.predict(pattern, 10**6, 8, link, 0.1).speed_up, 1)
      7.0

    Guarantees:
      With a larger ratio, more parameters or a longer latency seconds never fall, and
      with more bandwidth they never rise.
      Slightly below the break-even ratio it is faster than dense, slightly above it is
      not.
    """
    return _predict(pattern, shapes(parameters), workers, link, step_time, {})


def _predict(
    pattern: Pattern,
    params: Tree,
    workers: int,
    link: Link,
    step_time: float,
    known: dict[Family, float],
) -> Prediction:
    """As `predict`; break-even ratios of families are kept for their next member."""
    _check(pattern, link)
    checks.positive_int(workers=workers)
    checks.known(step_time=step_time)
    checks.positive(step_time=step_time)
    dense, _ = DENSE.loads(params, workers)
    mean, longest = pattern.loads(params, workers)
    seconds = step_time + mean.seconds(link)
    family = pattern.family
    if family and family not in known:

        def excess(ratio: float) -> float:
            load, _ = family(ratio).loads(params, workers)
            return load.seconds(link) - dense.seconds(link)

        known[family] = _largest_ratio(excess, 1 / entries_in(params))
    return Prediction(
        name=pattern.name,
        ratio=pattern.ratio,
        traffic=mean.traffic,
        compute=step_time,
        encoding=mean.encoding,
        network=mean.traffic.seconds(link),
        longest=step_time + longest.seconds(link),
        utilisation=mean.traffic.bytes / link.bandwidth / seconds,
        speed_up=(step_time + dense.seconds(link)) / seconds,
        faster_between=_faster_between(mean, dense, link.latency),
        break_even_ratio=known[family] if family else None,
    )


def plan(
    parameters: int | Tree,
    workers: int,
    link: Link,
    step_time: float,
    *,
    ratios: Sequence[float] = (0.1, 0.01, 0.001),
    periods: Sequence[int] = (12, 48),
    encodings: Encodings = CPU_2_CORES,
) -> list[Prediction]:
    """What each way of communicating would make of a step, the fastest first.

    The dense all-reduce, GMC through three compressors, CSER, majority vote, local SGD
    and SlowMo, GMC between local steps, D-PSGD and SGP; many other methods do the same
    to the link (see `gmc_jax.costs.patterns`). The time of a step is planned, not
    the accuracy after it.

    Args:
      parameters: how many there are, in float32, or a tree of their shapes and dtypes.
      workers: their number, at least 1.
      link: each worker's, which carries `bandwidth` bytes a second both ways at once.
      step_time: seconds of computation in a step, greater than 0.
      ratios: of the compressors, each in (0, 1].
      periods: steps between the meetings of local methods, each at least 1.
      encodings: what compressors cost. By default what was measured on two CPU cores,
        more than on any accelerator, so that compression is not flattered: what wins
        with it wins on yours. `measure_encodings()` has those of this device.

    Returns:
      A prediction for each, by seconds.

    Raises:
      TypeError: if `link` is no link.
      ValueError: if a number is out of its range, or `encodings` lacks a compressor.

    Example:
      >>> import gmc_jax
      >>> link = gmc_jax.timelines.Link(latency=0.02, bandwidth=125e6)
      >>> best, *_ = gmc_jax.plan(10**9, 64, link, step_time=0.5)
      >>> best.name
      'local, GMC of random_block every 12'
    """
    checks.several(ratios=ratios, periods=periods)
    ratios, periods = tuple(ratios), tuple(periods)
    for each in ratios:
        checks.known(ratios=each)
        checks.fraction(ratios=each)
    for each in periods:
        checks.positive_int(periods=each)
    checks.positive_int(workers=workers)
    check_link(link)
    if not isinstance(encodings, Mapping):
        raise TypeError(
            "`encodings` must say what compressors cost, as `measure_encodings()` "
            f"does, but is {checks.shown(encodings)}."
        )
    params = shapes(parameters)
    known: dict[Family, float] = {}
    found = [
        _predict(pattern, params, workers, link, step_time, known)
        for pattern in candidates(params, workers, ratios, periods, encodings)
    ]
    return sorted(found, key=lambda prediction: prediction.seconds)


def shapes(parameters: int | Tree) -> Tree:
    """So many parameters as leaves of float32 that int32 can address; or the tree."""
    checks.known(parameters=parameters)
    if not isinstance(parameters, int | float):
        sizes = [getattr(leaf, "size", None) for leaf in jax.tree.leaves(parameters)]
        if not sizes or None in sizes:
            raise TypeError(
                "`parameters` must be a number, or a tree of arrays or of their "
                f"shapes and dtypes, but is {checks.shown(parameters)}."
            )
        return parameters
    checks.positive_int(parameters=parameters)
    whole, rest = divmod(int(parameters), _LARGEST_LEAF)
    sizes = [_LARGEST_LEAF] * whole + [rest] * (rest > 0)
    return [jax.ShapeDtypeStruct((size,), np.float32) for size in sizes]


def _check(pattern: Pattern, link: Link) -> None:
    if not isinstance(pattern, Pattern):
        raise TypeError(
            "`pattern` must say who meets how often, such as `Pattern(name, "
            f"(Sync(channel),))`, but is {checks.shown(pattern)}."
        )
    check_link(link)


def _faster_between(
    load: Load, dense: Load, latency: float
) -> tuple[float, float] | None:
    """Where encoding + hops * latency + bytes / bandwidth is less than of the dense."""
    later = load.encoding + (load.traffic.hops - dense.traffic.hops) * latency
    saved = dense.traffic.bytes - load.traffic.bytes
    if later < 0:
        return (0.0 if saved >= 0 else saved / later, math.inf)
    return (0.0, saved / later if later else math.inf) if saved > 0 else None


def _largest_ratio(excess: Callable[[float], float], least: float) -> float:
    """The largest ratio whose excess, which never falls, is below 0.

    It is as good as linear, so it looks right beside the place where a line through the
    ends of the bracket crosses 0, and in the middle of what is left.
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
