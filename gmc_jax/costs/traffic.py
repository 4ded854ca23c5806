"""What a call of a channel puts on each worker's link, read off its traced program.

The collectives are found in the program as JAX traces it, for any number of workers: no
device is needed and nothing is allocated, so that a model of any size can be planned.
What each of them costs is the alpha-beta model (Hockney): a message of n bytes takes
latency + n / bandwidth. With K workers, each with a link that carries both ways at once
and reaches every other worker, and n the bytes of the operands on one worker:

    collective        bytes out, and in     hops, one after another
    all-reduce        2 (K - 1) / K n       2 (K - 1)     a ring
    reduce-scatter    (K - 1) / K n         K - 1         a ring
    all-gather        (K - 1) n             K - 1         a ring
    all-to-all        (K - 1) / K n         K - 1         to one worker after another
    permute           n                     1             nothing to oneself

Rings send as few bytes as there must be, and pay for it in latencies: of small messages
over slow links, trees would need fewer, 2 log2(K) of an all-reduce.

References:
  Hockney, "The communication challenge for MPP", Parallel Computing, 1994; Thakur,
  Rabenseifner and Gropp, "Optimization of Collective Communication Operations in
  MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
  clusters of workstations", 2009.
"""

from __future__ import annotations

from collections.abc import Callable
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
# Of so many workers: how many times its operands a worker sends, and its hops.
_COSTS: dict[str, Callable[[int], tuple[float, int]]] = {
    **dict.fromkeys(
        _REDUCTIONS, lambda workers: (2 * (1 - 1 / workers), 2 * (workers - 1))
    ),
    "reduce_scatter": lambda workers: (1 - 1 / workers, workers - 1),
    "all_gather": lambda workers: (workers - 1, workers - 1),
    "all_to_all": lambda workers: (1 - 1 / workers, workers - 1),
}


class Traffic(NamedTuple):
    """What leaves a worker on its link, and as much arrives.

    Attributes:
      bytes: how many, of the busiest worker.
      hops: how many messages it waits for one after another, each with its latency.
    """

    bytes: float
    hops: float

    def seconds(self, link: Link) -> float:
        """How long a link takes for it."""
        return self.hops * link.latency + self.bytes / link.bandwidth


def link_traffic(channel: Channel, params: Tree, workers: int) -> Traffic:
    """What one call of a channel puts on the link of each of so many workers.

    Where `message_bits` says how large a worker's message is, this says how often it
    travels: to every other worker, in shares round a ring, or to neighbours. Channels
    say nothing of it themselves; it is counted in the program that they trace to, and
    so holds for those of your own, and for channels around channels. Reductions that
    stand side by side are one, as XLA combines them; gathers of values and of indices
    are two, each with its own hops. Of a conditional the branch counts that sends most,
    and of a loop every round (one, where the program does not tell how many).

    Args:
      channel: any channel.
      params: the parameters, or any tree of the shapes and dtypes that are averaged;
        `jax.ShapeDtypeStruct` will do.
      workers: their number, at least 1.

    Returns:
      Bytes and hops, of the busiest worker. One worker alone sends nothing.

    Raises:
      TypeError: if `channel` is no channel.
      ValueError: if `workers` is not a whole number of at least 1, the channel is made
        for another number of workers, or it uses a collective that has no cost here.

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


def _loads(program: Program, axis: str, workers: int) -> Loads:
    total = np.zeros((workers, 2))
    reduced: set[int] = set()  # What the reductions right before this one have given.
    for equation in program.eqns:
        if axis not in axes_of(equation):
            total += _within(equation, axis, workers)
            reduced = set()
            continue
        load = _cost(equation, workers)
        if equation.primitive.name not in _REDUCTIONS:
            reduced = set()
        elif reduced and reduced.isdisjoint(map(id, equation.invars)):
            load[:, 1] = 0
            reduced.update(map(id, equation.outvars))
        else:
            reduced = set(map(id, equation.outvars))
        total += load
    return total


def _cost(equation: JaxprEqn, workers: int) -> Loads:
    """What a collective sends."""
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
            f"`channel` uses the collective `{name}`, of which it is not known what a "
            f"link carries. Known are {', '.join(_COSTS)} and ppermute."
        )
    return load


def _within(equation: JaxprEqn, axis: str, workers: int) -> Loads:
    """What the programs in an equation send: branches, bodies of loops, calls."""
    name, params = equation.primitive.name, equation.params
    loads = [_loads(program, axis, workers) for program in subprograms(equation)]
    if name == "cond":
        return max(loads, key=lambda load: tuple(load.max(axis=0)))
    once = sum(loads, np.zeros((workers, 2)))
    return params["length"] * once if name == "scan" else once
