"""A task: data shared out over workers, a network, its loss and how it is judged."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import gmc_jax
from experiments.data.batches import Draw, draws, steps_per_epoch
from experiments.data.datasets import DATA
from experiments.data.images import Data, Images, Split
from experiments.data.partitions import PARTITIONS, class_counts
from experiments.models import MODELS
from experiments.training.backends import own_workers
from experiments.training.config import Config
from gmc_jax.core import Tree

_CHUNK = 1000  # Images judged at a time, to bound the memory.


class Batch(NamedTuple):
    """What one worker trains on in one step.

    Attributes:
      images: as they are stored, augmented.
      labels: int32.
      key: for what the network itself draws.
    """

    images: jax.Array
    labels: jax.Array
    key: jax.Array


class Task(NamedTuple):
    """What a method is given to train, and nothing about the method.

    Attributes:
      params: the network's parameters at the start.
      stats: its batch statistics; an empty dict where it keeps none.
      share: the samples of every worker of this process, [its workers, size, ...].
      draws: maps a first and a last step to what decides the batches between them.
      take: one worker's batch, from its share and its draw at one step.
      loss: maps params, stats and a batch to the mean loss and new stats.
      judge: maps params and stats to what is measured of them, on so many images at
        most; on all if no number is given.
      class_counts: how many samples of each class each worker holds.
      steps_per_epoch: steps in which every worker goes through its share once.
      steps: of the whole training.
    """

    params: Tree
    stats: Tree
    share: Split
    draws: Callable[[int, int], Draw]
    take: Callable[[Split, Draw], Batch]
    loss: Callable[[Tree, Tree, Batch], tuple[jax.Array, Tree]]
    judge: Callable[..., dict[str, float]]
    class_counts: NDArray[np.int64]
    steps_per_epoch: int
    steps: int


def build(config: Config, seed: int) -> Task:
    """The task that `config` describes, for one seed; the same one for every method."""
    data = _data(config.data, config.data_file, config.fraction)
    shares = PARTITIONS[config.partition](
        data.train.labels, config.workers, config.alpha, seed
    )
    size = shares.shape[1]
    own = shares[own_workers(config.backend, config.workers)]
    per_epoch = steps_per_epoch(size, config.batch_size)
    model = MODELS[config.model](data.classes)
    image = jnp.asarray(data.prepare(jnp.asarray(data.train.images[:1])))
    variables = dict(
        jax.jit(functools.partial(model.init, train=False))(jax.random.key(seed), image)
    )
    params = variables.pop("params")

    def take(share, draw):
        own = gmc_jax.worker_key(draw.key())
        augmentation, network = jax.random.split(own)
        images = data.augment(augmentation, share.images[draw.chosen])
        return Batch(images, share.labels[draw.chosen], network)

    def loss(params, stats, batch):
        logits, changed = model.apply(
            {"params": params, **stats},
            data.prepare(batch.images),
            train=True,
            mutable=list(stats),
            rngs={"dropout": batch.key},
        )
        return _cross_entropy(logits, batch.labels).mean(), dict(changed)

    @jax.jit
    def total(params, stats, split):
        images = data.prepare(split.images)
        logits = model.apply({"params": params, **stats}, images, train=False)
        right = jnp.argmax(jnp.asarray(logits), axis=-1) == split.labels
        return _cross_entropy(logits, split.labels).sum(), right.sum()

    def mean(params, stats, split):
        starts = range(0, len(split.labels), _CHUNK)
        parts = [Split(*(x[i : i + _CHUNK] for x in split)) for i in starts]
        totals = [total(params, stats, part) for part in parts]
        return np.sum(totals, axis=0) / split.labels.size

    def judge(params, stats, most=None):
        loss, _ = mean(params, stats, _some(data.train, most))
        _, accuracy = mean(params, stats, _some(data.test, most))
        return {"loss": float(loss), "accuracy": float(accuracy)}

    return Task(
        params=params,
        stats=variables,
        share=Split(data.train.images[own], data.train.labels[own]),
        draws=functools.partial(draws, config.workers, size, config.batch_size, seed),
        take=take,
        loss=loss,
        judge=judge,
        class_counts=class_counts(data.train.labels, shares),
        steps_per_epoch=per_epoch,
        steps=config.steps or config.epochs * per_epoch,
    )


@functools.lru_cache(maxsize=1)  # All seeds and methods of a run share it.
def _data(name: str, data_file: Path | None, fraction: float) -> Data:
    data = DATA[name](data_file)
    images = len(data.train.labels)
    if round(fraction * images) < 1:
        raise ValueError(
            f"`fraction` is {fraction} of {images:,} training images, which is less "
            "than one. Use more of them."
        )
    return data._replace(train=_some(data.train, round(fraction * images)))


def _some(split: Split, most: int | None) -> Split:
    """At most so many samples of a split, always the same ones, drawn at random."""
    if most is None or most >= len(split.labels):
        return split
    chosen = np.random.default_rng(0).permutation(len(split.labels))[:most]
    images: Images = split.images[chosen]
    return Split(images, split.labels[chosen])


def _cross_entropy(logits, labels) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), labels
    )
