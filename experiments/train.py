"""Trains a task with one method, from wherever an earlier attempt was interrupted."""

import time
from collections.abc import Callable

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

import gmc_jax
from experiments.backends import BACKENDS
from experiments.config import Config
from experiments.record import Record
from experiments.tasks import Task
from gmc_jax.core import Tree
from gmc_jax.layouts import Step


def train(
    method: str,
    task: Task,
    config: Config,
    record: Record,
    advance: Callable[[int], None] = lambda done: None,
) -> Tree:
    """Trains `task` with `method`; evaluations and a summary go to `record`.

    At every evaluation a row is written and then a checkpoint, so the record holds all
    that a checkpoint has seen, and rows beyond the last checkpoint are made again.

    Args:
      method: a name in `METHODS`.
      task: what to train.
      config: how.
      record: where rows go; its directory holds the checkpoints.
      advance: called after every step with the number of steps done.

    Returns:
      The parameters at the end, as NumPy arrays.
    """
    tx = config.optimizer(method, task.steps)
    step = worker_step(task.loss, tx, config.backend)
    state, batch = (task.params, tx.init(task.params)), task.batches(0)
    plan = gmc_jax.layout(step, state, batch, config.workers)
    run, state = BACKENDS[config.backend](step, state, batch, config.workers)
    run = run.lower(state, batch).compile()  # So that `seconds` are of steps alone.
    sent = gmc_jax.message_bits(config.channel(method), task.params) / 8
    every = -(-task.steps // config.evaluations)

    def judged():
        params, opt_state = state
        return gmc_jax.fetch(gmc_jax.evaluate(opt_state, params, plan))

    with ocp.CheckpointManager(
        record.path.absolute() / "checkpoints" / method,
        options=ocp.CheckpointManagerOptions(max_to_keep=1),
    ) as checkpoints:
        seconds = 0.0
        done = checkpoints.latest_step()
        if done is not None:
            state, seconds = _restore(checkpoints, state)
        record.rewind(method, -1 if done is None else done)
        for stop in (*range(0, task.steps, every), task.steps):
            if done is not None and stop <= done:
                continue
            began = time.perf_counter()
            for index in range(done or 0, stop):
                state, metrics = run(state, task.batches(index))
                # Steps that queue up starve XLA's collectives between CPU devices.
                jax.block_until_ready(metrics)
                advance(index + 1)
            seconds += time.perf_counter() - began
            done = stop
            record.append(
                kind="evaluation",
                method=method,
                step=stop,
                bytes=stop * sent,
                **task.judge(judged()),
            )
            _save(checkpoints, stop, state, seconds)

    last = record.rows[-1]
    record.append(
        kind="summary",
        method=method,
        step=task.steps,
        learning_rate=config.rate(method),
        loss=last["loss"],
        accuracy=last["accuracy"],
        bytes_per_step=sent,
        dense_bytes_per_step=gmc_jax.message_bits(gmc_jax.exact(), task.params) / 8,
        relative_cost=gmc_jax.relative_cost(gmc_jax.fetch(state[1])),
        seconds=seconds,
    )
    return judged()


def worker_step(
    loss: Callable[..., jax.Array],
    tx: optax.GradientTransformationExtraArgs,
    backend: str,
) -> Step:
    """The step of one worker, the same under every backend."""
    gradient = jax.value_and_grad(loss)
    if backend == "simulate" and jax.default_backend() == "cpu":
        # jit has it traced once, and not once a worker.
        gradient = gmc_jax.unrolled(gradient)

    def step(state, batch):
        params, opt_state = state
        value, grads = gradient(gmc_jax.query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": value}

    return step


def _save(checkpoints, step, state, seconds):
    leaves = jax.tree.leaves(gmc_jax.fetch(state))
    item = {"leaves": leaves, "seconds": np.array(seconds)}
    checkpoints.save(step, args=ocp.args.StandardSave(item))


def _restore(checkpoints, state):
    leaves, treedef = jax.tree.flatten(state)
    item = {
        "leaves": [np.empty(x.shape, x.dtype) for x in leaves],
        "seconds": np.empty(()),
    }
    item = checkpoints.restore(
        checkpoints.latest_step(), args=ocp.args.StandardRestore(item)
    )
    # A device for what is not committed to one would keep `pmap` from moving it.
    put = [
        jax.device_put(new, old.sharding if old.committed else None)
        for new, old in zip(item["leaves"], leaves, strict=True)
    ]
    return treedef.unflatten(put), float(item["seconds"])
