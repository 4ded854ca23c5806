"""Measures computation without a network and the network without computation.

The planner predicts the time of a step from these two. All processes measure at the
same time, since they share the processors, as in training.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import gmc_jax
from experiments.data.batches import Draw
from experiments.data.images import Split
from experiments.network.lineup import Entry
from experiments.training import backends, tasks
from experiments.training.config import Config
from experiments.training.record import Row
from experiments.training.trainer import worker_step
from gmc_jax import planning, timelines
from gmc_jax.core import Tree

_REPEATS = 15
_LARGE = 2**20  # Entries of the all-reduce that shows the bandwidth: 4 MiB.


def link(workers: int, rate: float) -> timelines.Link:
    """Measures the latency of a ring of all hosts, over links of known rate.

    If the rate is infinite, the time of an all-reduce of 4 MiB gives the bandwidth.

    Args:
      workers: the number of hosts, with one worker each.
      rate: of the links, in bytes a second.
    """
    hops = 2 * (workers - 1)
    latency = _all_reduce(workers, 1) / max(1, hops)
    if rate == float("inf"):
        sent = 2 * (1 - 1 / workers) * 4 * _LARGE
        rate = sent / (_all_reduce(workers, _LARGE) - hops * latency)
    return timelines.Link(latency, rate)


def predict(entry: Entry, config: Config, params: Tree, link: timelines.Link) -> Row:
    """Predicts the time of an entry's step with the planner, from its computation."""
    planned = planning.predict(
        entry.pattern(config.ratio),
        params,
        config.workers,
        link,
        _computing(entry, config),
    )
    return {
        "predicted": planned.seconds,
        "computing": planned.compute,
        **dataclasses.asdict(link),
    }


def _computing(entry: Entry, config: Config) -> float:
    """Seconds of a step of one worker by itself, with encoding and decoding."""
    task = tasks.build(dataclasses.replace(config, workers=1, backend="simulate"), 0)
    (method,) = config.methods
    tx = config.optimizer(method, task.steps, task.steps_per_epoch)
    single = Mesh(np.array(jax.local_devices()[:1]), ("workers",))
    share = jax.device_put(task.share, NamedSharding(single, PartitionSpec("workers")))

    def batch(step: int) -> tuple[Split, Draw]:
        return share, Draw(*(leaf[0] for leaf in task.draws(step, step + 1)))

    start = task.params, tx.init(task.params), task.stats
    train, state = gmc_jax.distribute(
        worker_step(task, tx), start, batch(0), mesh=single
    )

    def step(number: int) -> None:
        nonlocal state
        state, _ = jax.block_until_ready(train(state, batch(number)))

    steps = entry.period * max(1, _REPEATS // entry.period)
    for number in range(steps):
        step(number)
    return float(np.mean(_seconds(lambda number: step(steps + number), steps)))


def _all_reduce(workers: int, entries: int) -> float:
    """Seconds of an all-reduce."""
    channel = gmc_jax.exact()

    def step(vector: jax.Array, own: jax.Array) -> tuple[jax.Array, dict]:
        mean, _, _ = channel.average(vector + own, channel.init(vector))
        return mean, {}

    own = np.zeros(workers, np.float32)
    train, vector = gmc_jax.distribute(
        step, jnp.zeros(entries), own, mesh=backends.mesh(workers)
    )

    def once(_: int) -> None:
        nonlocal vector
        vector, _ = jax.block_until_ready(train(vector, own))

    once(0)
    return float(np.median(_seconds(once, _REPEATS)))


def _seconds(step: Callable[[int], object], repeats: int) -> NDArray[np.float64]:
    """The time of the slowest process in each repeat; in training all wait for it."""
    multihost_utils.sync_global_devices("seconds")
    taken = np.empty(repeats)
    for index in range(repeats):
        began = time.perf_counter()
        step(index)
        taken[index] = time.perf_counter() - began
    gathered = multihost_utils.process_allgather(taken)
    return gathered.reshape(-1, repeats).max(axis=0)
