"""When things happen on simulated clocks, NumPy alone.

What is simulated is time, not speed of this machine: how long each gradient takes is
given (`constant_pace` and its siblings, or a trace), and a message takes `Link.seconds`
of its bytes. From these follow the order of all events and the second of each. Values
play no part, so that the order can be drawn up before anything is trained.
"""

import heapq
import pathlib
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax import checks
from gmc_jax.topologies import Topology

Pace: TypeAlias = NDArray[np.float64]
"""Seconds that each gradient takes, [workers, gradients]; after the last it repeats."""


class Link(NamedTuple):
    """What a message costs.

    Attributes:
      latency: seconds before the first byte arrives.
      bandwidth: bytes a second of one worker's, or the server's, link.
    """

    latency: float = 0.0
    bandwidth: float = np.inf

    def seconds(self, size: float) -> float:
        """How long a message of so many bytes takes."""
        return self.latency + size / self.bandwidth


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


def constant_pace(workers: int, seconds: float = 1.0) -> Pace:
    """All gradients take as long."""
    checks.positive(workers=workers)
    checks.magnitude(seconds=seconds)
    return np.full((workers, 1), float(seconds))


def straggler_pace(
    workers: int, factor: float, seconds: float = 1.0, straggler: int = 0
) -> Pace:
    """One worker takes `factor` times as long as the others."""
    checks.magnitude(factor=factor)
    pace = constant_pace(workers, seconds)
    pace[straggler] *= factor
    return pace


def random_pace(
    workers: int, gradients: int, spread: float, seconds: float = 1.0, seed: int = 0
) -> Pace:
    """Log-normal around a median; `spread` is the deviation of the logarithm."""
    checks.positive(workers=workers, gradients=gradients)
    checks.amount(spread=spread)
    checks.magnitude(seconds=seconds)
    draw = np.random.default_rng(seed)
    return seconds * np.exp(spread * draw.normal(size=(workers, gradients)))


def recorded_pace(trace: ArrayLike | str | pathlib.Path) -> Pace:
    """A trace: an array [workers, gradients] of seconds, or a text file of its rows.

    Raises:
      ValueError: if it is not a table of finite seconds greater than 0.
    """
    if isinstance(trace, str | pathlib.Path):
        trace = np.loadtxt(trace, ndmin=2)
    pace = np.asarray(trace, float)
    if pace.ndim != 2 or not pace.size or not ((pace > 0) & np.isfinite(pace)).all():
        raise ValueError(
            "`trace` must have a row for every worker, of finite seconds greater than "
            f"0 for each of its gradients, but is of shape {pace.shape}"
            + (f", from {np.nanmin(pace)} to {np.nanmax(pace)}." if pace.size else ".")
        )
    return pace


def all_reduce_times(
    pace: Pace, steps: int, size: float, link: Link, *, period: int = 1
) -> NDArray[np.float64]:
    """When each step of all workers together ends, [steps].

    Everybody waits for the slowest, then a ring passes 2 (n - 1) / n of `size` bytes in
    2 (n - 1) messages. With a period, as in local SGD, only every so many steps; the
    others end when the slowest worker ends them.
    """
    checks.positive(steps=steps, period=period)
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
    """
    checks.positive(steps=steps)
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
    to leave.
    """
    checks.positive(gradients=gradients)
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

    Raises:
      ValueError: if the topology is not symmetric, or has no two sides.
    """
    checks.positive(gradients=gradients)
    _check_workers(pace, topology)
    workers = len(pace)
    active = _active(topology)
    draw = np.random.default_rng(seed)
    neighbours = [np.flatnonzero(_edges(topology)[worker]) for worker in range(workers)]
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


def _edges(topology: Topology) -> NDArray[np.bool_]:
    edges = np.sum(topology.rounds, axis=0) > 0
    np.fill_diagonal(edges, False)
    return edges


def _active(topology: Topology) -> NDArray[np.bool_]:
    """Who is on the side of worker 0, or of the first of each part of the graph."""
    edges = _edges(topology)
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


def _check_workers(pace: Pace, topology: Topology) -> None:
    if len(pace) != topology.workers:
        raise ValueError(
            f"`pace` is of {len(pace)} workers, but `topology` of {topology.workers}. "
            "Make both for as many."
        )
