"""Trains with one method over the link of this host; measures bytes and seconds."""

import time
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import gmc_jax
from experiments.network import counters, measurements
from experiments.network.lineup import Entry
from experiments.training.config import Config
from experiments.training.methods import METHODS
from experiments.training.record import Row
from experiments.training.tasks import Task
from experiments.training.trainer import Trainer
from gmc_jax.costs.hlo import collectives
from gmc_jax.utils.multihost import on_first_process

Seconds: TypeAlias = float


def measure(
    entry: Entry,
    task: Task,
    config: Config,
    budget: Seconds,
    interface: str | None,
) -> Row:
    """Trains from the start for about `budget` seconds, together with other processes.

    Args:
      entry: the method.
      task: what to train, with one worker for each process.
      config: of this entry; the task was built from it.
      budget: seconds of training; at least three periods are trained.
      interface: whose bytes are counted; see `counters.read`.

    Returns:
      A row with the measurements of this process. Its columns are the same in all
      processes; `out`, `into` and `losses` differ.
    """
    (method,) = config.methods
    trainer = Trainer(method, [task], config)
    trainer.compile(1)
    # The first period connects the processes; the second one is timed.
    start = jax.tree.map(jnp.copy, trainer.state)
    trainer.run(0, entry.period)
    began = time.perf_counter()
    trainer.run(entry.period, 2 * entry.period)
    seconds = time.perf_counter() - began
    trainer.state = start
    steps = on_first_process(
        lambda: measurements.steps_for(seconds, budget, entry.period)
    )
    multihost_utils.sync_global_devices("measure")

    before = counters.read(interface)
    began = time.perf_counter()
    ends, losses = [], []
    for step in range(steps):
        trainer.run(step, step + 1)
        ends.append(time.perf_counter() - began)
        losses.append(trainer.metrics["loss"])
    traffic = counters.since(before, interface)

    dense = gmc_jax.message_bits(gmc_jax.exact(), task.params)
    sent = METHODS[method].bits(config.compression(steps), task.params)
    return measurements.of_one(
        traffic,
        ends,
        [_own(loss) for loss in losses],
        message_bytes=sent / 8,
        wire_bytes=_wire_bytes(trainer, entry.period),
        dense_bytes=dense / 8,
    )


def _wire_bytes(trainer: Trainer, period: int) -> float:
    """Bytes in the compiled step's collectives, averaged over a period."""
    cost = collectives(trainer.text)
    return cost.always + (cost.most - cost.always) / period


def _own(loss: jax.Array) -> float:
    """The mean over the workers of this process."""
    return float(np.mean([shard.data for shard in loss.addressable_shards]))
