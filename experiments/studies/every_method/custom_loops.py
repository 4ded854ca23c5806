"""Training loops of methods that do not fit into the common one.

SVRG and Katyusha X need full gradients; workers of AD-PSGD and A-PSGD have no common
step. These methods train the same task for as many steps, without augmentation.
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
    """A line of the table.

    Attributes:
      accuracy: on the test images.
      bytes_per_step: what one worker sends in a step, on average.
      own: the size of the state that differs between workers, for one worker, relative
        to the parameters.
      shared: the size of the state that is the same on all workers, relative to the
        parameters.
      gradient_at: the point at which gradients are computed.
    """

    accuracy: float
    bytes_per_step: float
    own: float
    shared: float
    gradient_at: str


def svrg(task: Task, config: Config) -> Line:
    """Trains with SVRG; an epoch is a pass of all workers over their shares."""
    rate = optax.cosine_decay_schedule(0.2, task.steps)
    return _with_snapshots(
        gmc_jax.svrg(rate, gmc_jax.exact(), epoch_length=task.steps_per_epoch),
        task,
        config,
    )


def katyusha_x(task: Task, config: Config) -> Line:
    """Trains with Katyusha X for losses that need not be strongly convex."""
    tx = gmc_jax.katyusha_x(0.05, gmc_jax.exact(), epoch_length=task.steps_per_epoch)
    return _with_snapshots(tx, task, config)


def ad_psgd(task: Task, config: Config) -> Line:
    """Trains with AD-PSGD on a ring, with local momentum."""
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
    # Both workers send in an exchange.
    messages = 2 * float(np.mean(events.partner != events.worker))
    return _asynchronous(
        method, events, task, messages, lambda state: state, "x it last read"
    )


def a_psgd(task: Task, config: Config) -> Line:
    """Trains with A-PSGD; the server's rate is divided by the number of workers."""
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
    return _asynchronous(
        method, events, task, 1, lambda state: state.known, "w it last read"
    )


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
    """The batches of all steps and workers, [steps, workers, batch, ...]."""
    chosen = task.draws(0, task.steps).chosen
    workers = np.arange(chosen.shape[1])[:, None]
    images, labels = (jnp.asarray(x)[workers, chosen] for x in task.share)
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
        _, old = gradient(gmc_jax.svrg_snapshot(opt_state), batch)
        _, grads = gradient(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, snapshot_grads=old)
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
    # A worker sends a gradient at each step, and a full gradient in each epoch.
    return _line(task, params, 1 + 1 / length, own, shared, "w, snapshot")


def _asynchronous(
    method: gmc_jax.Asynchronous,
    events: timelines.Events,
    task: Task,
    messages: float,
    own: Callable[[Tree], Tree],
    at: str,
) -> Line:
    """Trains event by event; `own` selects the state with a leading axis of workers."""
    batches = _batches(task)
    rows = gmc_jax.Event(events.worker, events.partner, events.reads)

    @jax.jit
    def train(state, rows, counts):
        def one_event(state, row):
            event, count = row
            batch = jax.tree.map(
                lambda leaf: leaf[count % task.steps, event.worker], batches
            )
            return method.step(state, event, batch)[0], None

        return jax.lax.scan(one_event, state, (rows, counts))[0]

    state = train(method.init(task.params), rows, jnp.asarray(events.counts))
    of_all_workers, size = entries_in(own(state)), entries_in(task.params)
    of_one_worker = of_all_workers / events.reads.shape[1] / size
    shared = (entries_in(state) - of_all_workers) / size
    return _line(task, method.evaluate(state), messages, of_one_worker, shared, at)
