"""The compiled training of one method, for all workers and for one or more seeds."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.data.batches import Draw
from experiments.models.gpt import split_over_model
from experiments.models.networks import CONVOLUTIONAL
from experiments.training.backends import BACKENDS, mesh, split
from experiments.training.config import Config
from experiments.training.tasks import Task
from gmc_jax.core import Tree
from gmc_jax.execution.step import Step


class Trainer:
    """Trains the tasks of some seeds together, several steps at a time.

    Several seeds are the workers of an outer simulation, without communication. State
    that is equal for all seeds is then kept once. So the counters are not batched, and
    conditionals on them stay conditionals.

    On an accelerator several steps are one compiled scan: the workers' shares are on
    the device, and the host only draws the order of the samples. On a CPU convolutions
    run ten times slower in a scan, so the loop is in Python.

    Attributes:
      state: `(params, opt_state, stats)`, in `layout`.
      layout: of the state: what differs between workers or, for several seeds, between
        seeds.
      metrics: of the last step or, after a compiled scan, of each of its steps; with an
        axis of workers.
    """

    def __init__(self, method: str, tasks: Sequence[Task], config: Config):
        """Traces the step to find what differs between workers; compiles nothing yet.

        Args:
          method: a name in `METHODS`.
          tasks: one for each seed; several only on the backend `simulate`.
          config: from which the tasks were built.

        """
        self._tasks = tasks
        task = tasks[0]
        tx = config.optimizer(method, task.steps, task.steps_per_epoch)
        on_cpu = jax.default_backend() == "cpu"
        unroll = (
            on_cpu and config.backend == "simulate" and config.model in CONVOLUTIONAL
        )
        step = worker_step(task, tx, unroll)
        starts = [_start(task, tx, config) for task in tasks]
        draws = [_at(task.draws(0, 1), 0) for task in tasks]
        example = _of_all_workers(task.share, config.workers), draws[0]
        running = BACKENDS[config.backend](
            step, starts[0], example, config.workers, config.devices_each
        )
        self.state, self._train = running.state, running.train
        self.layout = self._worker_layout = running.train.layout
        share = task.share
        if len(tasks) > 1:
            shares = [task.share for task in tasks]
            share, _ = batch = jax.tree.map(
                lambda *x: np.stack(x), *zip(shares, draws, strict=True)
            )
            self._train, _ = gmc_jax.simulate(
                _one_seed(running.train),
                self.state,
                batch,
                len(tasks),
                axis_name="seeds",
            )
            self.layout = self._train.layout
            self.state = jax.tree.map(
                lambda differs, *leaves: jnp.stack(leaves) if differs else leaves[0],
                self.layout.differs,
                *map(self._worker_layout.lay_out, starts),
            )
        self._share = running.place(share)
        self.metrics: Tree = {}
        self._scans = running.nests and not on_cpu
        self._compiled: dict[int, jax.stages.Compiled] = {}

    def compile(self, steps: int) -> None:
        """Compiles what `run` needs for this many steps, unless that is done already.

        It is separate from `run`, so that training can be timed without compilation.
        """
        length = steps if self._scans else 1
        if length not in self._compiled:
            program = self._scan if self._scans else self._train
            draws = self._draws(0, length)
            batch = self._share, (draws if self._scans else _at(draws, 0))
            lowered = program.lower(self.state, batch)
            self._compiled[length] = lowered.compile()

    def run(
        self, first: int, last: int, advance: Callable[[int], None] = lambda done: None
    ) -> None:
        """Takes the steps from `first` up to but not including `last`.

        Args:
          first: a step, counted from 0.
          last: a later step.
          advance: is called with the number of steps done, after every step or, if the
            steps are one compiled scan, after all of them.
        """
        self.compile(last - first)
        draws = self._draws(first, last)
        if self._scans:
            run = self._compiled[last - first]
            self.state, self.metrics = run(self.state, (self._share, draws))
            jax.block_until_ready(self.metrics)
            advance(last)
            return
        for index in range(last - first):
            batch = self._share, _at(draws, index)
            self.state, self.metrics = self._compiled[1](self.state, batch)
            # Queued steps can starve XLA's collectives between CPU devices.
            jax.block_until_ready(self.metrics)
            advance(first + index + 1)

    @property
    def text(self) -> str:
        """The HLO text of the program that was compiled last."""
        return list(self._compiled.values())[-1].as_text() or ""

    def of_each_seed(self) -> list[Tree]:
        """The state of each seed, in the layout of its workers."""
        if len(self._tasks) == 1:
            return [self.state]
        return [
            jax.tree.map(
                lambda differs, leaf, seed=seed: leaf[seed] if differs else leaf,
                self.layout.differs,
                self.state,
            )
            for seed in range(len(self._tasks))
        ]

    def models(self) -> list[tuple[Tree, Tree]]:
        """The parameters and batch statistics to evaluate, in NumPy, for each seed."""
        trained = self._worker_layout.of(lambda state: state[:2])
        statistics = self._worker_layout.of(lambda state: state[2])
        models = []
        for params, opt_state, stats in self.of_each_seed():
            point = gmc_jax.evaluate(opt_state, params, trained)
            stats = gmc_jax.average_workers(stats, statistics)
            models.append(gmc_jax.fetch((point, stats)))
        return models

    @property
    def _scan(self):
        def steps(state: Tree, batch: tuple[Tree, Draw]) -> tuple[Tree, Tree]:
            share, draws = batch
            return jax.lax.scan(
                lambda state, draw: self._train(state, (share, draw)), state, draws
            )

        return jax.jit(steps, donate_argnums=0)

    def _draws(self, first: int, last: int) -> Draw:
        draws = [task.draws(first, last) for task in self._tasks]
        if len(draws) == 1:
            return draws[0]
        return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *draws)


def worker_step(
    task: Task, tx: optax.GradientTransformationExtraArgs, unroll: bool = False
) -> Step:
    """Makes the step of one worker; it is the same for all backends."""
    gradient = jax.value_and_grad(task.loss, has_aux=True)
    if unroll:
        gradient = gmc_jax.unrolled(gradient)

    def step(state, batch):
        params, opt_state, stats = state
        point = gmc_jax.query(opt_state, params)
        (loss, stats), grads = gradient(point, stats, task.take(*batch))
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state, stats), {"loss": loss}

    return step


def _start(
    task: Task, tx: optax.GradientTransformationExtraArgs, config: Config
) -> Tree:
    """The state before the first step, split over the devices of each worker."""
    params = task.params
    if config.devices_each > 1:
        devices = mesh(config.workers, config.devices_each)
        params = split(params, devices, split_over_model)
    return params, tx.init(params), task.stats


def _one_seed(train: Step) -> Step:
    """Makes the step of one seed, which does not communicate with other seeds."""
    channel = gmc_jax.no_communication(axis_name="seeds")

    def step(state, batch):
        state, metrics = train(state, batch)
        return state, channel.average(metrics, channel.init(metrics))[0]

    return step


def _at(draws: Draw, step: int) -> Draw:
    return Draw(*(leaf[step] for leaf in draws))


def _of_all_workers(share: Tree, workers: int) -> Tree:
    """The shapes of all workers' samples; this process may hold only some of them."""
    return jax.tree.map(
        lambda own: jax.ShapeDtypeStruct((workers, *own.shape[1:]), own.dtype), share
    )
