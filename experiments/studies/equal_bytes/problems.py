"""The problems, the methods that send less than dense, and where rates are sought."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optax
from numpy.typing import NDArray

from experiments.studies.every_method.study import EVERY_METHOD, LEARNING_RATES
from experiments.training import tasks
from experiments.training.config import Config
from experiments.training.methods import METHODS
from experiments.training.tasks import Task

REFERENCES = ("dmsgd", "adam")
"""What all methods are compared with."""
BUDGETS = (0.1, 0.01)
"""Shares of the bytes that a dense method sends in the whole training."""
CENTRES = dict(LEARNING_RATES) | {"double_squeeze": 0.5}
"""The middle of the grid of rates, for methods without momentum and of other units."""


def digits(steps: int) -> Config:
    """A perceptron on handwritten digits; workers hold few labels each."""
    return Config(methods=REFERENCES, steps=steps, count=False)


def text(text_file: Path, steps: int) -> Config:
    """The transformer of `slowmo_text`, with smaller batches."""
    return Config(
        data="text",
        data_file=text_file,
        model="characters",
        partition="iid",
        methods=REFERENCES,
        batch_size=2,
        steps=steps,
        judge_on=200,
        count=False,
    )


def under_adam(text_file: Path, workers: int, batch_size: int, steps: int) -> Config:
    """The same transformer, as the studies `adam` and `choices` train it."""
    return replace(
        text(text_file, steps),
        methods=("adam",),
        workers=workers,
        batch_size=batch_size,
        judge_on=1000,
    )


def optimizer(
    method: str, task: Task, config: Config
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """Makes a method of `METHODS` from its learning rate at the start."""
    return partial(config.optimizer, method, task.steps, task.steps_per_epoch)


def bytes_sent(method: str, task: Task, config: Config) -> NDArray[np.float64]:
    """The bytes that a worker has sent after each number of steps, [steps + 1]."""
    sent = METHODS[method].bits_of_steps(config.compression(task.steps), task.params)
    return np.concatenate([[0.0], np.cumsum(sent) / 8])


def sending_less(config: Config) -> tuple[str, ...]:
    """The references, and every method that sends less than they do in a training."""
    task = tasks.build(config, config.seed)
    dense = bytes_sent(REFERENCES[0], task, config)[-1]
    others = (name for name in EVERY_METHOD if name not in REFERENCES)
    less = (name for name in others if bytes_sent(name, task, config)[-1] < dense)
    return *REFERENCES, *less


def stops(sent: NDArray[np.float64], dense: float) -> Sequence[int]:
    """The last steps of the whole training and of each budget.

    Args:
      sent: the bytes that a worker has sent after each number of steps.
      dense: the bytes that a dense method sends in the whole training.

    Returns:
      The number of steps; then, for each budget, the most steps in which a worker sends
      no more bytes than that.
    """
    within = [int(np.sum(sent[1:] <= share * dense)) for share in BUDGETS]
    return [len(sent) - 1, *within]
