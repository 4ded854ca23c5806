"""Timelines: when steps end and gradients arrive, on simulated clocks.

Two inputs determine the time and the order of all events: a pace, the seconds that each
gradient takes (see `gmc_jax.paces`), and a `Link`, which gives the seconds of a message
from its bytes. Neither the speed of this machine nor the values of gradients have any
influence. So a timeline is computed before training starts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmc_jax.clocks.link import Link, check_link
from gmc_jax.clocks.paces import Pace, as_pace
from gmc_jax.graphs.topology import Topology, check_topology
from gmc_jax.utils import checks


class Event(NamedTuple):
    """The application of one gradient.

    Attributes:
      worker: int32, the worker that computed the gradient.
      partner: int32, the worker that it first averages with; `worker` itself if none.
      reads: [workers] bool, the workers that read the parameters right after.
    """

    worker: Any  # An integer of NumPy or JAX, or a tracer.
    partner: Any
    reads: Any


class Events(NamedTuple):
    """Gradients in the order in which they are applied.

    Attributes:
      time: [events], seconds since the start, in ascending order.
      worker: [events] int32, the worker that computed each gradient.
      partner: [events] int32, the worker that it first averages with; `worker` itself
        if none.
      reads: [events, workers] bool, the workers that read the parameters right after.
    """

    time: NDArray[np.float64]
    worker: NDArray[np.int32]
    partner: NDArray[np.int32]
    reads: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.int32]:
        """For each event, how many earlier events are of the same worker, [events]."""
        is_own = self.worker[:, None] == np.arange(self.reads.shape[1])
        before = np.cumsum(is_own, axis=0) - 1
        return before[np.arange(len(is_own)), self.worker].astype(np.int32)

    def rows(self) -> Iterator[Event]:
        """Yields one event after another, as `ad_psgd` and `a_psgd` take them."""
        return map(Event, self.worker, self.partner, self.reads)


def all_reduce_times(
    pace: Pace, steps: int, size: float, link: Link, *, period: int = 1
) -> NDArray[np.float64]:
    """Computes when each step of a synchronous method ends, [steps].

    All workers wait for the slowest. Then a ring of n workers averages: each sends
    2 (n - 1) messages of size / n bytes, one after another. With a period greater than
    1, as in local SGD, workers synchronise only every `period` steps. The other steps
    end when the slowest worker ends them.

    Args:
      pace: the pace of all workers.
      steps: the number of steps, at least 1.
      size: the bytes that are averaged, at least 0.
      link: the link of each worker.
      period: steps from one synchronisation to the next, at least 1.

    Returns:
      Seconds since the start, [steps].

    Raises:
      TypeError: if `link` is no link.
      ValueError: if an argument is out of its range.
    """
    pace = as_pace("pace", pace)
    _check_message(size, link)
    checks.positive_int(period=period)
    steps = checks.whole(steps=steps)
    workers = len(pace)
    messages = 2 * (workers - 1)
    all_reduce = messages * link.seconds(size / workers)
    clocks, times = np.zeros(workers), []
    for step in range(steps):
        clocks = clocks + pace[:, step % pace.shape[1]]
        if (step + 1) % period == 0:
            clocks = np.full(workers, clocks.max() + all_reduce)
        times.append(clocks.max())
    return np.array(times)


def gossip_times(
    pace: Pace, steps: int, size: float, link: Link, topology: Topology
) -> NDArray[np.float64]:
    """Computes when each step of D-PSGD ends on its last worker, [steps].

    A worker receives the messages of its neighbours one after another, while it
    computes its gradient. The first begins when all these neighbours, and the worker
    if its own weight is not 0, have ended the step before. The worker's step ends when
    its gradient is computed and all messages have arrived.

    Args:
      pace: the pace of all workers.
      steps: the number of steps, at least 1.
      size: the bytes of a message, at least 0.
      link: the link of each worker, which all messages to it share.
      topology: which workers receive from which.

    Returns:
      Seconds since the start, [steps].

    Raises:
      TypeError: if `link` is no link, or `topology` no topology.
      ValueError: if an argument is out of its range, or `pace` and `topology` are for
        different numbers of workers.
    """
    pace = as_pace("pace", pace)
    _check_message(size, link)
    steps = checks.whole(steps=steps)
    _check_workers(pace, topology)
    clocks, times = np.zeros(len(pace)), []
    counts = [
        np.bincount(matrix.without_diagonal().receivers, minlength=len(pace))
        for matrix in topology.mixing
    ]
    for step in range(steps):
        now = step % len(counts)
        matrix, messages, ready = topology.mixing[now], counts[now], np.zeros(len(pace))
        np.maximum.at(ready, matrix.receivers, clocks[matrix.senders])
        arrived = np.where(messages, ready + messages * link.seconds(size), clocks)
        clocks = np.maximum(clocks + pace[:, step % pace.shape[1]], arrived)
        times.append(clocks.max())
    return np.array(times)


def server_events(pace: Pace, gradients: int, size: float, link: Link) -> Events:
    """Simulates workers that send gradients to a server and fetch its parameters.

    The server's link carries one message of `size` bytes at a time, in the order of
    requests; of simultaneous requests that of the lower worker comes first. So the link
    congests as the number of workers grows. A gradient is applied when it has arrived.
    Parameters are read when they begin to leave the server.

    At second 0 all workers fetch the first parameters, one after another. This takes
    time like every message, but `reads` does not show it, since no event precedes it.

    Args:
      pace: the pace of all workers.
      gradients: the number of gradients of all workers together, at least 1.
      size: the bytes of a gradient, and of the parameters, at least 0.
      link: the server's link.

    Returns:
      One event for each gradient.

    Raises:
      TypeError: if `link` is no link.
      ValueError: if an argument is out of its range.
    """
    pace = as_pace("pace", pace)
    _check_message(size, link)
    gradients = checks.whole(gradients=gradients)
    workers = len(pace)
    done = np.zeros(workers, int)
    # Requests: when, of which worker, and whether it sends a gradient or fetches.
    waiting = [(0.0, worker, False) for worker in range(workers)]
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
    """Simulates workers that average with one neighbour at a time.

    The graph must be bipartite. Workers on the side of worker 0 are active: with each
    gradient they average with a neighbour drawn at random. The others are passive: they
    start no exchange. So no two workers wait for each other.

    An exchange begins with the computation of the gradient, or later, when the links of
    both workers are free. It occupies both links for the time of one message of `size`
    bytes, since each direction carries one. The gradient is applied when the
    computation and the exchange have ended.

    Args:
      pace: the pace of all workers.
      gradients: the number of gradients of all workers together, at least 1.
      size: the bytes of the parameters, at least 0.
      link: the link of each worker.
      topology: which workers may average with each other, in any round. Its weights
        have no influence.
      seed: the seed of the draws of neighbours, at least 0.

    Returns:
      One event for each gradient.

    Raises:
      TypeError: if `link` is no link, or `topology` no topology.
      ValueError: if an argument is out of its range, or the topology is not symmetric,
        not bipartite, or for another number of workers.
    """
    pace = as_pace("pace", pace)
    _check_message(size, link)
    gradients = checks.whole(gradients=gradients)
    checks.nonnegative_int(seed=seed)
    _check_workers(pace, topology)
    workers = len(pace)
    active = _active(topology)
    draw = np.random.default_rng(seed)
    neighbours = [np.flatnonzero(row) for row in topology.edges]
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
    is_read = np.zeros((len(order), workers), bool)
    for event, readers in enumerate(reads):
        is_read[event, readers] = True
    return Events(
        np.array(time), np.array(worker, np.int32), np.array(partner, np.int32), is_read
    )


def _active(topology: Topology) -> NDArray[np.bool_]:
    """Which workers are on the side of the lowest worker connected with them."""
    edges = topology.edges
    if not np.array_equal(edges, edges.T):
        raise ValueError(
            "`topology` must be symmetric, since both workers of a pair average, got "
            "edges in one direction only. Use `topologies.ring`, `topologies.torus` or "
            "`topologies.from_adjacency`."
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
                        "`topology` must be bipartite, with active workers on one side "
                        "and passive ones on the other, got the neighbours "
                        f"{worker} and {other} on the same side. Use a ring or torus "
                        "with even numbers of workers, or `topologies.from_adjacency` "
                        "of a bipartite graph."
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
            "`pace` and `topology` must be for the same number of workers, got "
            f"{len(pace)} and {topology.workers}. Make both for the same number."
        )
