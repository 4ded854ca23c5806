"""Predicting the seconds of a step over a link, before any training.

Seconds a step are not progress: a method that sends less may need more steps, or may
never get there. `worth` says how long news lags in a training, and whether that is
safe. Computation, encoding and communication follow one another. What a method sends
with a delay travels beside the computation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gmc_jax.clocks.link import Link, check_link
from gmc_jax.core import Tree
from gmc_jax.costs._break_even import faster_between, largest_ratio
from gmc_jax.costs.candidates import candidates, never_meeting
from gmc_jax.costs.compression_cost import CPU_2_CORES, CompressionCosts
from gmc_jax.costs.expressions import Optimizer
from gmc_jax.costs.patterns import DENSE as DENSE
from gmc_jax.costs.patterns import Family, Load
from gmc_jax.costs.patterns import Pattern as Pattern
from gmc_jax.costs.patterns import Sync as Sync
from gmc_jax.costs.traffic import Traffic
from gmc_jax.costs.worth import ORDER
from gmc_jax.costs.worth import Worth as Worth
from gmc_jax.costs.worth import worth as worth
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

_LARGEST_LEAF = 2**31 - 1  # Entries that int32 can address.


class Prediction(NamedTuple):
    """The predicted time of a step with a pattern, as the mean over all steps.

    Attributes:
      name: the name of the pattern.
      ratio: the share of the entries that its messages hold; None for all of them.
      traffic: the bytes that leave a worker, and the hops that it waits for.
      compute: seconds of computation.
      encoding: seconds of encoding and decoding.
      network: seconds on the link.
      longest: seconds of the longest step, in which all channels act.
      utilisation: the share of the link's bandwidth that is used, in [0, 1].
      speed_up: the seconds of a step with the dense all-reduce over `seconds`.
      faster_between: the bandwidths, in bytes a second, between which the pattern is
        faster than the dense all-reduce: (0, b) if only below b, None if nowhere.
      break_even_ratio: the largest ratio at which the pattern is faster than the dense
        all-reduce; 0 if there is none, None for a pattern without a ratio to choose.
      hidden: seconds on the link that pass beside the computation.
      peak: the bytes that leave a worker in the longest step.
      expression: Python that makes a method with the pattern, with the names `gmc_jax`,
        `optax` and `rate`; empty if the pattern has none.
      worth: what the pattern can be worth in a training; None if its steps are unknown.
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
    hidden: float
    peak: float
    expression: str = ""
    worth: Worth | None = None

    @property
    def total(self) -> float | None:
        """The seconds of the training; None if the number of its steps is unknown."""
        return None if self.worth is None else self.seconds * self.worth.steps

    @property
    def seconds(self) -> float:
        """The seconds of a step, as the mean over all steps."""
        return self.compute + self.encoding + self.network - self.hidden

    @property
    def busy(self) -> float:
        """The share of the time that is spent on the link, latencies included."""
        return self.network / self.seconds

    @property
    def breaks_even(self) -> bool:
        """Whether the pattern is faster than the dense all-reduce."""
        return self.speed_up > 1


def predict(
    pattern: Pattern,
    parameters: float | Tree,
    workers: int,
    link: Link,
    step_time: float,
    *,
    steps: int | None = None,
) -> Prediction:
    """Predicts the seconds of a step with one pattern.

        seconds = step_time + encoding + hops * latency + bytes / bandwidth

    Bytes and hops are those of `link_traffic`. For a channel with a period they are
    divided by the period. With a delay, a step computes and communicates at once:

        seconds = max(step_time, hops * latency + bytes / bandwidth) + encoding

    A device that does not run collectives beside computation takes the sum of both.

    Args:
      pattern: which channels workers average through, and how often; the channels may
        be your own.
      parameters: the number of parameters, in float32, such as 1e9; or a tree of their
        shapes and dtypes.
      workers: the number of workers, at least 1.
      link: the link of each worker. It carries `bandwidth` bytes a second in each
        direction, both at once.
      step_time: seconds of computation in a step, greater than 0.
      steps: the steps of the training, to judge the pattern by `worth`.

    Returns:
      The seconds, their parts, and where they equal those of the dense all-reduce; with
      `steps`, also what the pattern can be worth.

    Raises:
      TypeError: if `pattern` is no pattern or `link` no link.
      ValueError: if a number is out of its range.

    Example:
      >>> import gmc_jax
      >>> from gmc_jax import planning
      >>> channel = gmc_jax.all_gather(gmc_jax.scaled_sign())
      >>> link = gmc_jax.Link(latency=1e-3, bandwidth=1.25e6)
      >>> pattern = planning.Pattern("EF-signSGD", (planning.Sync(channel),))
      >>> round(planning.predict(pattern, 10**6, 8, link, 0.1).speed_up, 1)
      7.0

    Guarantees:
      With a larger ratio, more parameters or a longer latency the seconds never fall.
      With more bandwidth they never rise.
      Slightly below the break-even ratio the pattern is faster than the dense
      all-reduce, slightly above it is not.
    """
    _check(pattern, link)
    checks.positive_int(workers=workers)
    if steps is not None:
        checks.positive_int(steps=steps)
    model = _Model(shapes(parameters), 1.0, workers)
    return _predict(pattern, model, link, step_time, {}, steps=steps)


class _Model(NamedTuple):
    """What is averaged.

    Attributes:
      params: a tree of shapes and dtypes.
      times: how many of these trees are averaged, all in the same messages.
      workers: the number of workers.
    """

    params: Tree
    times: float
    workers: int

    def loads(self, pattern: Pattern) -> tuple[Load, Load]:
        """The load of the mean step, and of the longest."""
        mean, longest = pattern.loads(self.params, self.workers)
        return self._scaled(mean), self._scaled(longest)

    def _scaled(self, load: Load) -> Load:
        traffic, late = (
            Traffic(self.times * size, hops) for size, hops in (load.traffic, load.late)
        )
        return Load(traffic, self.times * load.encoding, late, load.beside)


def _predict(
    pattern: Pattern,
    model: _Model,
    link: Link,
    step_time: float,
    known: dict[Family, float],
    dense: Load | None = None,
    steps: int | None = None,
) -> Prediction:
    """Predicts as `predict` does; `known` caches the break-even ratios of families."""
    checks.known(step_time=step_time)
    checks.positive(step_time=step_time)
    dense = dense or model.loads(DENSE)[0]
    mean, longest = model.loads(pattern)
    seconds = step_time + mean.seconds(link, step_time)
    family = pattern.family
    if family and family not in known:

        def excess(ratio: float) -> float:
            load, _ = model.loads(family(ratio))
            return load.seconds(link, step_time) - dense.seconds(link, step_time)

        entries = model.times * entries_in(model.params)
        known[family] = largest_ratio(excess, 1 / entries)
    return Prediction(
        name=pattern.name,
        ratio=pattern.ratio,
        traffic=mean.traffic,
        compute=step_time,
        encoding=mean.encoding,
        network=mean.traffic.seconds(link),
        longest=step_time + longest.seconds(link, step_time),
        utilisation=mean.traffic.bytes / link.bandwidth / seconds,
        speed_up=(step_time + dense.seconds(link, step_time)) / seconds,
        faster_between=faster_between(mean, dense, link.latency, step_time),
        break_even_ratio=known[family] if family else None,
        hidden=mean.hidden(link, step_time),
        peak=longest.traffic.bytes,
        expression=pattern.expression,
        worth=worth(pattern, steps) if steps else None,
    )


def plan(
    parameters: float | Tree,
    workers: int,
    link: Link,
    step_time: float,
    *,
    ratios: Sequence[float] = (0.1, 0.01, 0.001),
    periods: Sequence[int] = (12, 48),
    compression_costs: CompressionCosts = CPU_2_CORES,
    steps: int | None = None,
    optimizer: Optimizer = "sgd",
) -> list[Prediction]:
    """Predicts the seconds of a step for each pattern of communication, fastest first.

    With `steps` it also judges each pattern by `planning.worth`. Those that are safe
    come first, then those that are aggressive, then those that are worth no more than
    never to meet: each group with the shortest training first. In the last group is
    the baseline `never meeting`: workers train alone and average once, at the end.
    Without `steps` losses are not considered at all, and the fastest may be useless.

    The patterns are the dense all-reduce, GMC through sparse and quantised messages,
    gathered or in two phases, QSGD and TernGrad, PowerSGD, CSER, majority vote, local
    SGD and SlowMo, CoCoD-SGD, Streaming DiLoCo, SparseLoCo, GMC between local steps,
    D-PSGD, and SGP, some of them also with a delay. Many other methods have one of
    these patterns (see `gmc_jax.costs.patterns`). Each prediction has the Python that
    makes the method, over momentum SGD or over Adam.

    PowerSGD depends on the shapes of matrices. If no leaf is a matrix, as for a number
    of parameters, it is planned for squares of 1024 by 1024 entries.

    A tree counts as one leaf for each dtype. From 2^31 entries on, which are compressed
    leaf by leaf, the traffic is that of fewer entries, times as many as there are. It
    lacks what rounding up to whole entries adds for each leaf.

    Args:
      parameters: the number of parameters, in float32, such as 1e9; or a tree of their
        shapes and dtypes.
      workers: the number of workers, at least 1.
      link: the link of each worker. It carries `bandwidth` bytes a second in each
        direction, both at once.
      step_time: seconds of computation in a step, greater than 0.
      ratios: the ratios of the compressors, each in (0, 1].
      periods: the periods of local methods, in steps, each at least 1.
      compression_costs: the costs of the compressors. The default was measured on two
        CPU cores. Accelerators are faster, so compression that wins with the default
        wins on them too. `measure_encodings()` measures the costs on this device.
      steps: the steps of the training; None if they are unknown.
      optimizer: the optimizer that methods are written over: `sgd`, with momentum, or
        `adam`.

    Returns:
      A prediction for each pattern, in ascending order of seconds; with `steps`, in the
      order above.

    Raises:
      TypeError: if `link` is no link, `parameters` is neither a number nor a tree of
        shapes, or `compression_costs` is no mapping.
      ValueError: if a number is out of its range, or `compression_costs` lacks a
        compressor.

    Example:
      >>> import gmc_jax
      >>> link = gmc_jax.Link(latency=0.02, bandwidth=125e6)
      >>> best, *_ = gmc_jax.plan(10**9, 64, link, step_time=0.5)
      >>> best.name
      'local, GMC of random_block every 12'
      >>> best, *_ = gmc_jax.plan(10**9, 64, link, step_time=0.5, steps=100_000)
      >>> best.name, best.worth.verdict
      ('CoCoD-SGD every 48', 'safe')
      >>> best.expression.removeprefix("gmc_jax.")
      'cocod_sgd(optax.sgd(rate, 0.9, nesterov=True), gmc_jax.exact(), period=48)'
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
    if not isinstance(compression_costs, Mapping):
        raise TypeError(
            "`compression_costs` must map compressors to their costs, got "
            f"{checks.shown(compression_costs)}. Measure them with "
            "`gmc_jax.measure_encodings()`."
        )
    if steps is not None:
        checks.positive_int(steps=steps)
    params = shapes(parameters)
    model, known = _in_short(params, workers), dict[Family, float]()
    dense, _ = model.loads(DENSE)
    patterns = candidates(
        params, workers, ratios, periods, compression_costs, optimizer
    )
    if steps is not None:
        patterns.append(never_meeting(steps, optimizer))
    predictions = [
        _predict(pattern, model, link, step_time, known, dense, steps)
        for pattern in patterns
    ]
    return sorted(predictions, key=_rank)


def _rank(prediction: Prediction) -> tuple[int, float]:
    """Verdicts before seconds."""
    judged = prediction.worth
    return ORDER.index(judged.verdict) if judged else 0, prediction.seconds


def shapes(parameters: float | Tree) -> Tree:
    """Converts a number of parameters to float32 leaves, and returns a tree as it is.

    Each leaf has at most 2^31 - 1 entries, which int32 can address.
    """
    checks.known(parameters=parameters)
    if not isinstance(parameters, int | float | np.number):
        sizes = [getattr(leaf, "size", None) for leaf in jax.tree.leaves(parameters)]
        if not sizes or None in sizes:
            raise TypeError(
                "`parameters` must be a number, or a tree of arrays or of their "
                f"shapes and dtypes, got {checks.shown(parameters)}."
            )
        return parameters
    whole, rest = divmod(checks.whole(parameters=parameters), _LARGEST_LEAF)
    sizes = [_LARGEST_LEAF] * whole + [rest] * (rest > 0)
    return [jax.ShapeDtypeStruct((size,), np.float32) for size in sizes]


def _in_short(params: Tree, workers: int) -> _Model:
    """A leaf of each dtype in place of many: messages of all leaves travel together."""
    totals: Counter[np.dtype] = Counter()
    for leaf in jax.tree.leaves(params):
        totals[np.dtype(leaf.dtype)] += leaf.size
    # From 2^31 entries on in all, each leaf is a vector of its own.
    times = max(1.0, max(totals.values()) / _LARGEST_LEAF)
    leaves = [
        jax.ShapeDtypeStruct((math.ceil(size / times),), dtype)
        for dtype, size in totals.items()
    ]
    return _Model(leaves, times, workers)


def _check(pattern: Pattern, link: Link) -> None:
    if not isinstance(pattern, Pattern):
        raise TypeError(
            f"`pattern` must be a `Pattern`, got {checks.shown(pattern)}. Write "
            "`Pattern(name, (Sync(channel),))`."
        )
    check_link(link)
