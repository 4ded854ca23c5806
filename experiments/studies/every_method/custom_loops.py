"""Methods whose loop is not the one of all others, for the table of every method.

SVRG and Katyusha X want full gradients, and AD-PSGD and A-PSGD have no common step.
They train the task of the table as long as the others, without augmentation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.studies.every_method.state_sizes import own_and_shared
from experiments.training.config import Config
from experiments.training.tasks import Batch, Task
from gmc_jax import paces, timelines, topologies
from gmc_jax.core import Tree
from gmc_jax.utils.trees import entries_in


class Line(NamedTuple):
    """What the table says of a method.

    Attributes:
      accuracy: on the test images.
      bytes_per_step: what one worker sends, in the mean.
      own: state that each worker has of its own, in units of the parameters.
      shared: state that all have alike.
      gradient_at: where gradients are taken.
    """

    accuracy: float
    bytes_per_step: float
    own: float
    shared: float
    gradient_at: str


def svrg(task: Task, config: Config) -> Line:
    """An epoch is a pass of all workers over their shares."""
    rate = optax.cosine_decay_schedule(0.2, task.steps)
    return _with_snapshots(
        gmc_jax.svrg(rate, gmc_jax.exact(), epoch_length=task.steps_per_epoch),
        task,
        config,
    )


def katyusha_x(task: Task, config: Config) -> Line:
    """The version for losses that need not be strongly convex."""
    tx = gmc_jax.katyusha_x(0.05, gmc_jax.exact(), epoch_length=task.steps_per_epoch)
    return _with_snapshots(tx, task, config)


def ad_psgd(task: Task, config: Config) -> Line:
    """Neighbours on a ring, with local momentum."""
    rate = optax.cosine_decay_schedule(0.05, task.steps)
    method = gmc_jax.ad_psgd(
        optax.sgd(rate, config.momentum),
        gradient=_gradient(task),
        workers=config.workers,
    )
    events = timelines.neighbour_events(
        paces.random(config.workers, task.steps, spread=0.1),
        task.steps * config.workers,
        0,
        timelines.Link(),
        topologies.ring(config.workers),
    )
    # In an exchange two send.
    messages = 2 * float(np.mean(events.partner != events.worker))
    return _apart(method, events, task, messages, lambda state: state, "x it last read")


def a_psgd(task: Task, config: Config) -> Line:
    """A server applies each gradient, at a rate over the number of workers."""
    rate = optax.cosine_decay_schedule(
        0.2 / config.workers, task.steps * config.workers
    )
    method = gmc_jax.a_psgd(
        optax.sgd(rate), gradient=_gradient(task), workers=config.workers
    )
    events = timelines.server_events(
        paces.random(config.workers, task.steps, spread=0.1),
        task.steps * config.workers,
        0,
        timelines.Link(),
    )
    return _apart(method, events, task, 1, lambda state: state.known, "w it last read")


CUSTOM_LOOPS: dict[str, tuple[str, Callable[[Task, Config], Line]]] = {
    "svrg": ("SVRG", svrg),
    "katyusha_x": ("Katyusha X", katyusha_x),
    "ad_psgd": ("AD-PSGD", ad_psgd),
    "a_psgd": ("A-PSGD", a_psgd),
}


def _gradient(task: Task) -> Callable[[Tree, Batch], tuple[jax.Array, Tree]]:
    def loss(params, batch):
        return task.loss(params, task.stats, batch)[0]

    return jax.value_and_grad(loss)


def _batches(task: Task) -> Batch:
    """Of all steps and workers, [steps, workers, batch, ...]."""
    chosen = task.draws(0, task.steps).chosen
    everyone = np.arange(chosen.shape[1])[:, None]
    images, labels = (jnp.asarray(x)[everyone, chosen] for x in task.share)
    return Batch(images, labels, jax.random.split(jax.random.key(0), chosen.shape[:2]))


def _line(
    task: Task, params: Tree, messages: float, own: float, shared: float, at: str
) -> Line:
    dense = gmc_jax.message_bits(gmc_jax.exact(), task.params) / 8
    accuracy = task.evaluate(params, task.stats)["accuracy"]
    return Line(accuracy, messages * dense, own, shared, at)


def _with_snapshots(
    tx: optax.GradientTransformationExtraArgs, task: Task, config: Config
) -> Line:
    gradient = _gradient(task)

    def step(state, batch):
        params, opt_state = state
        _, there = gradient(gmc_jax.svrg_snapshot(opt_state), batch)
        _, here = gradient(params, batch)
        updates, opt_state = tx.update(here, opt_state, params, snapshot_grads=there)
        return (optax.apply_updates(params, updates), opt_state), {}

    batches = _batches(task)
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    begin = task.params, tx.init(task.params)
    train, state = gmc_jax.simulate(step, begin, first, config.workers)
    images, labels = (jnp.concatenate(jnp.asarray(x)) for x in task.share)
    everything = Batch(images, labels, jax.random.key(0))

    @jax.jit
    def epoch(state, batches):
        params, opt_state = state
        _, full = gradient(params, everything)
        state = params, gmc_jax.set_full_gradient(opt_state, params, full)
        return jax.lax.scan(train, state, batches)[0]

    length = task.steps_per_epoch
    for start in range(0, task.steps, length):
        part = jax.tree.map(lambda x, i=start: x[i : i + length], batches)
        state = epoch(state, part)
    params = gmc_jax.evaluate(state[1], state[0], train.layout)
    own, shared = own_and_shared(begin, train.layout, task.params)
    # A mean at each step, and a full gradient an epoch.
    return _line(task, params, 1 + 1 / length, own, shared, "w, snapshot")


def _apart(
    method: gmc_jax.Asynchronous,
    events: timelines.Events,
    task: Task,
    messages: float,
    own: Callable[[Tree], Tree],
    at: str,
) -> Line:
    """`own` picks of the state what has a leading axis of workers."""
    batches = _batches(task)
    rows = gmc_jax.Event(events.worker, events.partner, events.reads)

    @jax.jit
    def walk(state, rows, counts):
        def one(state, row):
            event, count = row
            batch = jax.tree.map(
                lambda leaf: leaf[count % task.steps, event.worker], batches
            )
            return method.step(state, event, batch)[0], None

        return jax.lax.scan(one, state, (rows, counts))[0]

    state = walk(method.init(task.params), rows, jnp.asarray(events.counts))
    everyones, size = entries_in(own(state)), entries_in(task.params)
    each = everyones / events.reads.shape[1] / size
    shared = (entries_in(state) - everyones) / size
    return _line(task, method.evaluate(state), messages, each, shared, at)
