"""The traffic on a worker's link in a call of a channel, read off its traced program.

The collectives are those of the program that JAX traces for any number of workers. No
device is needed and nothing is allocated, so models of any size can be planned. A
message of n bytes takes latency + n / bandwidth, the alpha-beta model (Hockney). Each
of K workers has one link to all others, which carries both directions at once. With n
the bytes of a collective's operands on one worker:

    collective        bytes out, and in     hops, one after another
    all-reduce        2 (K - 1) / K n       2 (K - 1)     a ring
    reduce-scatter    (K - 1) / K n         K - 1         a ring
    all-gather        (K - 1) n             K - 1         a ring
    all-to-all        (K - 1) / K n         K - 1         to one worker after another
    permute           n                     1             none if sent to itself

Rings send the fewest bytes possible, but have many hops. For small messages over slow
links trees would be faster: an all-reduce would have 2 log2(K) hops.

References:
  Hockney, "The communication challenge for MPP", Parallel Computing, 1994; Thakur,
  Rabenseifner and Gropp, "Optimization of Collective Communication Operations in
  MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
  clusters of workstations", 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.extend.core import JaxprEqn
from numpy.typing import NDArray

from gmc_jax.clocks.link import Link
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import SENDS_NOTHING, Program, axes_of, subprograms
from gmc_jax.utils.trees import size_in_bits

Loads: TypeAlias = NDArray[np.float64]
"""Bytes and hops of every worker, [workers, 2]."""

_REDUCTIONS = ("psum", "pmax", "pmin")
# For a number of workers: the bytes that a worker sends, over n, and its hops.
_COSTS: dict[str, Callable[[int], tuple[float, int]]] = {
    **dict.fromkeys(
        _REDUCTIONS, lambda workers: (2 * (1 - 1 / workers), 2 * (workers - 1))
    ),
    "reduce_scatter": lambda workers: (1 - 1 / workers, workers - 1),
    "all_gather": lambda workers: (workers - 1, workers - 1),
    "all_to_all": lambda workers: (1 - 1 / workers, workers - 1),
}


class Traffic(NamedTuple):
    """What a worker sends over its link; it receives as much.

    Attributes:
      bytes: the bytes that leave the busiest worker.
      hops: the messages that it waits for one after another, each with its latency.
    """

    bytes: float
    hops: float

    def seconds(self, link: Link) -> float:
        """How long the traffic takes on a link: hops * latency + bytes / bandwidth."""
        return self.hops * link.latency + self.bytes / link.bandwidth


def link_traffic(channel: Channel, params: Tree, workers: int) -> Traffic:
    """Counts the bytes and hops of a worker's link in one call of a channel.

    `message_bits` gives the size of a worker's message. This function also counts where
    the message is sent: to every other worker, in shares round a ring, or to
    neighbours. It counts the collectives in the traced program of the channel. So it
    works for channels of your own and for channels around channels.

    Adjacent reductions share their hops, since XLA combines them. The gathers of values
    and of indices have hops of their own. A conditional counts as the branch that sends
    most. Padding that is for TPUs alone does not count. A loop counts as all its
    rounds, or as one if the program does not tell their number.

    Args:
      channel: any channel.
      params: the parameters, or any tree of the shapes and dtypes that are averaged;
        `jax.ShapeDtypeStruct` will do.
      workers: the number of workers, at least 1.

    Returns:
      Bytes and hops of the busiest worker. A single worker sends nothing.

    Raises:
      TypeError: if `channel` is no channel.
      ValueError: if `workers` is not a whole number of at least 1, the channel is made
        for another number of workers, or it uses a collective whose cost is not known.

    Example:
      >>> import gmc_jax, jax
      >>> params = jax.ShapeDtypeStruct((1000,), "float32")
      >>> gmc_jax.link_traffic(gmc_jax.all_gather(gmc_jax.top_k(0.1)), params, 8)
      Traffic(bytes=5600.0, hops=14.0)

    Guarantees:
      Bytes and hops are those of the collectives in the compiled program.
      Nothing is allocated in the size of the parameters.
    """
    checks.channel(channel=channel)
    checks.positive_int(workers=workers)

    def call(tree: Tree) -> Tree:
        return channel.average(tree, channel.init(tree))

    axes = [(channel.axis_name, workers)]
    program = jax.make_jaxpr(call, axis_env=axes)(params)
    size, hops = _loads(program, channel.axis_name, workers).max(axis=0)
    return Traffic(float(size), float(hops))


def loads_of_equations(
    program: Program, axis: str, workers: int
) -> Iterator[tuple[JaxprEqn, Loads]]:
    """Each equation of a program, with its load or that of the programs in it."""
    reduced: set[int] = set()  # Results of the reductions right before this one.
    for equation in program.eqns:
        if axis not in axes_of(equation):
            reduced = set()
            yield equation, _within(equation, axis, workers)
            continue
        load = _cost(equation, workers)
        if equation.primitive.name not in _REDUCTIONS:
            reduced = set()
        elif reduced and reduced.isdisjoint(map(id, equation.invars)):
            load[:, 1] = 0
            reduced.update(map(id, equation.outvars))
        else:
            reduced = set(map(id, equation.outvars))
        yield equation, load


def _loads(program: Program, axis: str, workers: int) -> Loads:
    loads = (load for _, load in loads_of_equations(program, axis, workers))
    return sum(loads, np.zeros((workers, 2)))


def _cost(equation: JaxprEqn, workers: int) -> Loads:
    """The bytes and hops of a collective."""
    name, params = equation.primitive.name, equation.params
    size = size_in_bits([value.aval for value in equation.invars]) / 8
    load = np.zeros((workers, 2))
    if name == "ppermute":
        for sender, receiver in params["perm"]:
            load[sender] += (size, 1) if sender != receiver else (0, 0)
    elif name in _COSTS:
        groups = params.get("axis_index_groups")
        times, hops = _COSTS[name](len(groups[0]) if groups else workers)
        load += (times * size, hops)
    elif name not in SENDS_NOTHING:
        raise ValueError(
            f"`channel` must use collectives whose traffic is known, got `{name}`. "
            f"Known are {', '.join(_COSTS)} and ppermute."
        )
    return load


def _within(equation: JaxprEqn, axis: str, workers: int) -> Loads:
    """The loads of the programs in an equation: branches, bodies of loops, calls."""
    name, params = equation.primitive.name, equation.params
    loads = [_loads(program, axis, workers) for program in subprograms(equation)]
    if params.get("branches_platforms"):
        return loads[-1]  # That of all platforms without a branch of their own.
    if name == "cond":
        return max(loads, key=lambda load: tuple(load.max(axis=0)))
    total = sum(loads, np.zeros((workers, 2)))
    return params["length"] * total if name == "scan" else total
