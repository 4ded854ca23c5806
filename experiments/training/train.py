"""Trains tasks with one method, and resumes from the latest checkpoint."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import jax
import numpy as np

import gmc_jax
from experiments.training.clock import seconds_at
from experiments.training.config import Config
from experiments.training.methods import METHODS
from experiments.training.record import CHECKPOINTS, Record
from experiments.training.tasks import Task, build
from experiments.training.trainer import Trainer
from experiments.utils import units
from gmc_jax.core import Tree


def train(
    method: str,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    config: Config,
    record: Record,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Tree]:
    """Trains a method on the tasks of some seeds; evaluations go to the record.

    Each evaluation first writes its rows and then saves a checkpoint. So the record has
    all rows up to the latest checkpoint, and later rows are written again on resuming.

    Args:
      method: a name in `METHODS`.
      tasks: one for each seed.
      seeds: for which the tasks were built.
      config: from which the tasks were built.
      record: receives the rows; its directory holds the checkpoints.
      advance: is called with the number of steps done.

    Returns:
      Parameters and batch statistics of each seed at the end, as NumPy arrays.
    """
    task = tasks[0]
    phases = _phases(tasks, seeds, config)
    sent = METHODS[method].bits(config.compression(task.steps), task.params) / 8
    clock = _clock(method, phases)
    every = -(-task.steps // config.evaluations)
    places = {*range(0, task.steps, every), *(phase.last for phase in phases)}

    def measure(done: int, phase: _Phase, trainer: Trainer) -> list[Tree]:
        models = trainer.models()
        most = config.judge_last_on if done == task.steps else config.judge_on
        states = trainer.of_each_seed()
        for seed, model, state in zip(seeds, models, states, strict=True):
            cost = 0.0
            if done:
                counted = METHODS[method].counted and config.count
                cost = gmc_jax.relative_cost(state[1]) if counted else np.nan
            record.append(
                kind="evaluation",
                method=method,
                seed=seed,
                step=done,
                epoch=done / task.steps_per_epoch,
                bytes=done * sent,
                relative_cost=cost,
                **clock(done),
                **phase.tasks[0].evaluate(*model, most),
            )
        return models

    models, seconds = None, 0.0
    for phase in phases:
        trainer = Trainer(method, phase.tasks, phase.config)
        with gmc_jax.Checkpoints(
            record.path / CHECKPOINTS / f"{method}-{seeds[0]}",
            trainer.layout,
            about={"method": method, "seeds": list(seeds), "steps": task.steps},
        ) as checkpoints:
            done = checkpoints.latest
            if done is not None and done >= phase.last and phase is not phases[-1]:
                continue
            if done is not None:
                done, trainer.state, extras = checkpoints.restore(
                    trainer.state, resize=0 < done == phase.first
                )
                seconds = cast(float, extras["seconds"])
            record.rewind(method, seeds, -1 if done is None else done)
            for stop in sorted(place for place in places if place <= phase.last):
                if done is not None and stop <= done:
                    continue
                if stop:
                    trainer.compile(stop - (done or 0))
                began = time.perf_counter()
                if stop:
                    trainer.run(done or 0, stop, advance)
                seconds += time.perf_counter() - began
                done = stop
                models = measure(stop, phase, trainer)
                checkpoints.save(stop, trainer.state, seconds=seconds)
            models = trainer.models() if models is None else models

    assert models is not None  # The last phase always ends here.
    ended = {
        row["seed"]: row
        for row in record.rows
        if row["kind"] == "evaluation"
        and (row["method"], row["step"]) == (method, task.steps)
    }
    for seed, model in zip(seeds, models, strict=True):
        _keep(model, record.path / "models" / f"{method}-{seed}.npz")
        if (method, seed) in record.trained:
            continue
        row = ended[seed]
        written = {} if task.sample is None else {"sample": task.sample(model[0], 300)}
        record.append(
            kind="summary",
            method=method,
            seed=seed,
            step=task.steps,
            learning_rate=config.rate(method),
            loss=row["loss"],
            test_loss=row["test_loss"],
            accuracy=row["accuracy"],
            bytes_per_step=sent,
            dense_bytes_per_step=gmc_jax.message_bits(gmc_jax.exact(), task.params) / 8,
            relative_cost=row["relative_cost"],
            seconds=seconds / len(seeds),
            **clock(task.steps),
            **written,
        )
    return models


class _Phase(NamedTuple):
    """Steps that are trained with one number of workers.

    Attributes:
      config: with this number of workers.
      tasks: one for each seed.
      first: the first step.
      last: the step after the last one.
    """

    config: Config
    tasks: Sequence[Task]
    first: int
    last: int


def _phases(
    tasks: Sequence[Task], seeds: Sequence[int], config: Config
) -> list[_Phase]:
    """Two phases if the number of workers is to change, else one."""
    steps = tasks[0].steps
    if config.resize is None:
        return [_Phase(config, tasks, 0, steps)]
    where, workers = config.resize
    if where >= steps:
        raise ValueError(
            f"`resize` must come before the last step, {steps:,}, got step {where:,}. "
            "Leave it out, or name an earlier step."
        )
    later = dataclasses.replace(config, workers=workers, resize=None)
    # The schedule of the learning rate goes on, whatever an epoch is.
    later = dataclasses.replace(later, steps=steps)
    own = [build(later, seed) for seed in seeds]
    return [_Phase(config, tasks, 0, where), _Phase(later, own, where, steps)]


def _clock(method: str, phases: Sequence[_Phase]) -> Callable[[int], dict[str, float]]:
    """Maps a number of steps to their simulated seconds, if there is a link."""
    link = phases[0].config.link
    if link is None:
        return lambda done: {}
    each = []
    for config, tasks, first, last in phases:
        after = seconds_at(
            METHODS[method],
            config.compression(tasks[0].steps),
            tasks[0].params,
            link,
            units.seconds(config.step_time),
        )
        each.append(np.diff(after)[first:last])
    after = np.concatenate([[0.0], np.cumsum(np.concatenate(each))])
    return lambda done: {"simulated_seconds": float(after[done])}


def _keep(model: Tree, path: Path) -> None:
    """Writes parameters and batch statistics, named by their paths in the tree."""
    if jax.process_index():
        return
    path.parent.mkdir(exist_ok=True)
    named = {
        jax.tree_util.keystr(place, simple=True, separator="/"): leaf
        for place, leaf in jax.tree_util.tree_leaves_with_path(model)
    }
    half = path.with_suffix(".part")
    with half.open("wb") as file:
        np.savez(file, **named)
    half.replace(path)
