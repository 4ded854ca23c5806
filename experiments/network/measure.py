"""Trains with one method on the link of this host, and counts."""

import time
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import gmc_jax
from experiments.network import counters, measurements
from experiments.network.lineup import Contender
from experiments.training.config import Config
from experiments.training.methods import METHODS
from experiments.training.record import Row
from experiments.training.tasks import Task
from experiments.training.trainer import Program
from gmc_jax.costs.hlo import collectives
from gmc_jax.utils.multihost import on_first_process

Seconds: TypeAlias = float


def measure(
    contender: Contender,
    task: Task,
    config: Config,
    budget: Seconds,
    interface: str | None,
) -> Row:
    """Trains from the start for about `budget` seconds, in step with other processes.

    Args:
      contender: what to train with.
      task: what to train, with one worker for each process.
      config: that the task was built from, with the contender's part.
      budget: what the steps are to take; at least three are taken, or three periods.
      interface: whose bytes are counted; see `counters.read`.

    Returns:
      What this process saw: a row, equal in the keys but for `out`, `into`, `losses`.
    """
    (method,) = config.methods
    program = Program(method, [task], config)
    program.compile(1)
    # The first steps connect the processes; the next ones tell how long they take.
    start = jax.tree.map(jnp.copy, program.state)
    program.run(0, contender.period)
    began = time.perf_counter()
    program.run(contender.period, 2 * contender.period)
    seconds = time.perf_counter() - began
    program.state = start
    steps = on_first_process(
        lambda: measurements.steps_for(seconds, budget, contender.period)
    )
    multihost_utils.sync_global_devices("measure")

    before = counters.read(interface)
    began = time.perf_counter()
    ends, losses = [], []
    for step in range(steps):
        program.run(step, step + 1)
        ends.append(time.perf_counter() - began)
        losses.append(program.metrics["loss"])
    traffic = counters.since(before, interface)

    dense = gmc_jax.message_bits(gmc_jax.exact(), task.params)
    sent = METHODS[method].bits(config.messages(steps), task.params)
    return measurements.of_one(
        traffic,
        ends,
        [_own(loss) for loss in losses],
        message_bytes=sent / 8,
        wire_bytes=_wire_bytes(program, contender.period),
        dense_bytes=dense / 8,
    )


def _wire_bytes(program: Program, period: int) -> float:
    """Of the compiled step: what it sends always, and at meetings, on average."""
    cost = collectives(program.text)
    return cost.always + (cost.most - cost.always) / period


def _own(loss: jax.Array) -> float:
    """The mean over the workers of this process."""
    return float(np.mean([shard.data for shard in loss.addressable_shards]))
