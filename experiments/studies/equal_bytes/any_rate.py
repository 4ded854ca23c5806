"""The compiled training of one method, for any learning rate and any seed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.data.batches import Draw
from experiments.training.config import Config
from experiments.training.tasks import Task
from experiments.training.trainer import worker_step
from gmc_jax.core import Tree


class Reached(NamedTuple):
    """What a training has reached at a step.

    Attributes:
      loss: on training samples.
      test_loss: on test samples.
      accuracy: on test samples.
    """

    loss: float
    test_loss: float
    accuracy: float


class AnyRate:
    """Trains one method; rate, seed and number of steps are arguments of one program.

    The learning rate at the start is a part of the state, and the steps are a loop of
    a length that the program does not know. So a search for a rate compiles once. The
    network must have no convolutions: on a CPU they are slow in a loop.
    """

    def __init__(
        self,
        optimizer: Callable[[jax.Array | float], optax.GradientTransformation],
        task: Task,
        config: Config,
    ):
        """Traces the step; compiles nothing yet.

        Args:
          optimizer: makes the method from the learning rate at the start, which may be
            traced.
          task: of any seed; those of the other seeds differ in data and parameters.
          config: from which all tasks were built.

        """

        def with_rate(rate):
            return optax.with_extra_args_support(optimizer(rate))

        self._optimizer = with_rate
        self._most = config.judge_on

        def step(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
            rate, training = state
            training, metrics = worker_step(task, self._optimizer(rate))(
                training, batch
            )
            return (rate, training), metrics

        batch = task.share, _at(task.draws(0, 1), 0)
        train, _ = gmc_jax.simulate(step, self._start(task, 0.1), batch, config.workers)
        self._layout = train.layout

        def steps(state: Tree, share: Tree, draws: Draw, first: int, last: int) -> Tree:
            return jax.lax.fori_loop(
                first,
                last,
                lambda i, state: train(state, (share, _at(draws, i)))[0],
                state,
            )

        self._steps = jax.jit(steps, donate_argnums=0)

    def train(self, task: Task, rate: float, stops: Sequence[int]) -> list[Reached]:
        """Trains a task of one seed, and evaluates it after some numbers of steps.

        Args:
          task: of one seed.
          rate: the learning rate at the start.
          stops: numbers of steps, in ascending order.

        Returns:
          What was reached at each stop. Once a loss is not finite, the training ends,
          and later losses are infinite.
        """
        share, draws = jax.device_put((task.share, task.draws(0, stops[-1])))
        state = self._layout.lay_out(self._start(task, rate))
        reached: list[Reached] = []
        done = 0
        for stop in stops:
            if reached and not np.isfinite(reached[-1].loss):
                reached.append(reached[-1]._replace(loss=np.inf, test_loss=np.inf))
                continue
            state = self._steps(state, share, draws, done, stop)
            done = stop
            reached.append(self._evaluate(task, state))
        return reached

    def _start(self, task: Task, rate: float) -> Tree:
        opt_state = self._optimizer(rate).init(task.params)
        training = task.params, opt_state, task.stats
        return jnp.asarray(rate, jnp.float32), training

    def _evaluate(self, task: Task, state: Tree) -> Reached:
        (params, opt_state, stats) = state[1]
        point = gmc_jax.evaluate(
            opt_state, params, self._layout.of(lambda state: state[1][:2])
        )
        stats = gmc_jax.average_workers(
            stats, self._layout.of(lambda state: state[1][2])
        )
        return Reached(**task.evaluate(point, stats, self._most))


def _at(draws: Draw, step: int) -> Draw:
    return Draw(*(leaf[step] for leaf in draws))
