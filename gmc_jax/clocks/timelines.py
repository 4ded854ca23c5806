"""When things happen on simulated clocks, NumPy alone.

What is simulated is time, not speed of this machine: how long each gradient takes is
given (see `gmc_jax.paces`), and a message takes `Link.seconds` of its bytes. From these
follow the order of all events and the second of each. Values play no part, so that the
order can be drawn up before anything is trained.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmc_jax.clocks.link import Link, check_link
from gmc_jax.clocks.paces import Pace, given
from gmc_jax.graphs.topology import Topology, check_topology
from gmc_jax.utils import checks


class Event(NamedTuple):
    """One gradient that is applied.

    Attributes:
      worker: int32, whose gradient it is.
      partner: int32, with whom that worker averages first; itself for nobody.
      reads: [workers] bool, who reads the parameters right after.
    """

    worker: Any  # An integer, of NumPy or JAX, or a tracer.
    partner: Any
    reads: Any


class Events(NamedTuple):
    """Gradients in the order in which they are applied.

    Attributes:
      time: [events], seconds since the start, never falling.
      worker: [events] int32, whose gradient it is.
      partner: [events] int32, with whom that worker averages first; itself for nobody.
      reads: [events, workers] bool, who reads the parameters right after.
    """

    time: NDArray[np.float64]
    worker: NDArray[np.int32]
    partner: NDArray[np.int32]
    reads: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.int32]:
        """How many gradients each one's worker has had before, [events]."""
        mine = self.worker[:, None] == np.arange(self.reads.shape[1])
        before = np.cumsum(mine, axis=0) - 1
        return before[np.arange(len(mine)), self.worker].astype(np.int32)

    def rows(self) -> Iterator[Event]:
        """One after another, as `ad_psgd` and `a_psgd` take them."""
        return map(Event, self.worker, self.partner, self.reads)


def all_reduce_times(
    pace: Pace, steps: int, size: float, link: Link, *, period: int = 1
) -> NDArray[np.float64]:
    """When each step of all workers together ends, [steps].

    Everybody waits for the slowest, then a ring passes 2 (n - 1) / n of `size` bytes in
    2 (n - 1) messages. With a period, as in local SGD, only every so many steps; the
    others end when the slowest worker ends them.

    Args:
      pace: of all workers.
      steps: how many.
      size: bytes of what is averaged.
      link: of each worker.
      period: steps between two averages.

    Raises:
      ValueError: if an argument is out of its range.
    """
    pace = given("pace", pace)
    _check_message(size, link)
    checks.positive_int(steps=steps, period=period)
    workers = len(pace)
    messages = 2 * (workers - 1)
    meeting = messages * link.seconds(size / workers)
    clocks, times = np.zeros(workers), []
    for step in range(steps):
        clocks = clocks + pace[:, step % pace.shape[1]]
        if (step + 1) % period == 0:
            clocks = np.full(workers, clocks.max() + meeting)
        times.append(clocks.max())
    return np.array(times)


def gossip_times(
    pace: Pace, steps: int, size: float, link: Link, topology: Topology
) -> NDArray[np.float64]:
    """When each step of D-PSGD ends on its last worker, [steps].

    A worker hears its neighbours, one message after another, while it computes; it
    waits for both, and for neighbours who are not yet as far.

    Args:
      pace: of all workers.
      steps: how many.
      size: bytes of a message.
      link: of each worker, which all its messages share.
      topology: who hears whom.

    Raises:
      TypeError: if `topology` is no topology.
      ValueError: if an argument is out of its range, or they are of other numbers of
        workers.
    """
    pace = given("pace", pace)
    _check_message(size, link)
    checks.positive_int(steps=steps)
    _check_workers(pace, topology)
    clocks, times = np.zeros(len(pace)), []
    for step in range(steps):
        heard = topology.rounds[step % len(topology.rounds)] > 0
        ready = np.where(heard, clocks, 0).max(axis=1)
        messages = heard.sum(axis=1) - np.diag(heard)
        arrived = np.where(messages, ready + messages * link.seconds(size), clocks)
        clocks = np.maximum(clocks + pace[:, step % pace.shape[1]], arrived)
        times.append(clocks.max())
    return np.array(times)


def server_events(pace: Pace, gradients: int, size: float, link: Link) -> Events:
    """Workers who send gradients to a server and fetch parameters from it.

    The server's link carries one message at a time, of `size` bytes, first come first
    served (of those who come together the lower worker), so it congests as workers
    grow. A gradient is applied when it has arrived; parameters are read when they begin
    to leave. At second 0 all fetch the first parameters, one after another, the lower
    worker first: that takes time like every message, and is no event, so that `reads`
    does not show it.

    Args:
      pace: of all workers.
      gradients: of all workers together.
      size: bytes of a gradient, and of the parameters.
      link: the server's.

    Raises:
      ValueError: if an argument is out of its range.
    """
    pace = given("pace", pace)
    _check_message(size, link)
    checks.positive_int(gradients=gradients)
    workers = len(pace)
    done = np.zeros(workers, int)
    waiting = [(0.0, worker, False) for worker in range(workers)]  # To fetch.
    heapq.heapify(waiting)
    free, order, reads = 0.0, [], []
    while len(order) < gradients:
        ready, worker, sends = heapq.heappop(waiting)
        begin = max(free, ready)
        free = begin + link.seconds(size)
        if sends:
            order.append((free, worker, worker))
            reads.append([])
            heapq.heappush(waiting, (free, worker, False))
        else:
            if reads:
                reads[-1].append(worker)
            ends = free + pace[worker, done[worker] % pace.shape[1]]
            done[worker] += 1
            heapq.heappush(waiting, (ends, worker, True))
    return _events(order, reads, workers)


def neighbour_events(
    pace: Pace,
    gradients: int,
    size: float,
    link: Link,
    topology: Topology,
    *,
    seed: int = 0,
) -> Events:
    """Workers who average with one neighbour at a time, and wait for nobody else.

    The graph has two sides. Those on the side of worker 0 are active: with each
    gradient they average with a neighbour drawn at random; the others, passive, only
    answer, so that no two wait for each other. An exchange takes both links for as long
    as a message of `size` bytes each way, which cross; it begins with the gradient's
    computation, or when both links are free, and the gradient is applied when both have
    ended.

    Args:
      pace: of all workers.
      gradients: of all workers together.
      size: bytes of the parameters.
      link: of each worker.
      topology: who may average with whom, in any round; its weights play no part.
      seed: of the draws of neighbours, at least 0.

    Raises:
      TypeError: if `topology` is no topology.
      ValueError: if an argument is out of its range, the topology is not symmetric, has
        no two sides, or is of another number of workers.
    """
    pace = given("pace", pace)
    _check_message(size, link)
    checks.positive_int(gradients=gradients)
    checks.nonnegative_int(seed=seed)
    _check_workers(pace, topology)
    workers = len(pace)
    active = _active(topology)
    draw = np.random.default_rng(seed)
    neighbours = [np.flatnonzero(heard) for heard in topology.edges]
    links, done, order = np.zeros(workers), np.zeros(workers, int), []

    def start(worker: int, now: float) -> tuple[float, int, int]:
        ends = now + pace[worker, done[worker] % pace.shape[1]]
        done[worker] += 1
        if not active[worker] or not len(neighbours[worker]):
            return ends, worker, worker
        partner = int(draw.choice(neighbours[worker]))
        begin = max(now, links[worker], links[partner])
        links[[worker, partner]] = begin + link.seconds(size)
        return max(ends, links[worker]), worker, partner

    running = [start(worker, 0.0) for worker in range(workers)]
    heapq.heapify(running)
    while len(order) < gradients:
        event = heapq.heappop(running)
        order.append(event)
        heapq.heappush(running, start(event[1], event[0]))
    return _events(order, [[worker] for _, worker, _ in order], workers)


def _events(
    order: list[tuple[float, int, int]], reads: list[list[int]], workers: int
) -> Events:
    time, worker, partner = zip(*order, strict=True)
    read = np.zeros((len(order), workers), bool)
    for event, readers in enumerate(reads):
        read[event, readers] = True
    return Events(
        np.array(time), np.array(worker, np.int32), np.array(partner, np.int32), read
    )


def _active(topology: Topology) -> NDArray[np.bool_]:
    """Who is on the side of worker 0, or of the first of each part of the graph."""
    edges = topology.edges
    if not np.array_equal(edges, edges.T):
        raise ValueError(
            "`topology` must be symmetric, since two who average both do. Use `ring`, "
            "`torus` or `from_adjacency`."
        )
    side = np.full(len(edges), -1)
    for first in range(len(edges)):
        todo = [first] if side[first] < 0 else []
        side[todo] = 0
        while todo:
            worker = todo.pop()
            for other in np.flatnonzero(edges[worker]):
                if side[other] == side[worker]:
                    raise ValueError(
                        "`topology` must have two sides, active workers and passive "
                        f"ones that only answer, but {worker} and {other} are "
                        "neighbours on the same one. Use a ring or torus with even "
                        "numbers, or `from_adjacency` of a bipartite graph."
                    )
                if side[other] < 0:
                    side[other] = 1 - side[worker]
                    todo.append(int(other))
    return side == 0


def _check_message(size: float, link: Link) -> None:
    checks.known(size=size)
    checks.nonnegative(size=size)
    check_link(link)


def _check_workers(pace: Pace, topology: Topology) -> None:
    check_topology(topology)
    if len(pace) != topology.workers:
        raise ValueError(
            f"`pace` is of {len(pace)} workers, but `topology` of {topology.workers}. "
            "Make both for as many."
        )
