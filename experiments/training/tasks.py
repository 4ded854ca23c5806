"""A task: data divided among workers, a network, its loss and its evaluation."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import gmc_jax
from experiments.data import datasets
from experiments.data.batches import Draw, draws, steps_per_epoch, windows
from experiments.data.images import Data, Images, Split
from experiments.data.partitions import PARTITIONS, class_counts
from experiments.models.networks import MODELS
from experiments.training.backends import own_workers
from experiments.training.config import Config
from experiments.training.sampling import sampler
from gmc_jax.core import Tree

_CHUNK = 1000  # Images that are evaluated at a time, to bound the memory.


class Batch(NamedTuple):
    """The samples of one worker in one step.

    Attributes:
      images: augmented, in the dtype in which they are stored.
      labels: whole numbers.
      key: for the random draws of the network.
    """

    images: jax.Array
    labels: jax.Array
    key: jax.Array


class Task(NamedTuple):
    """A training problem, independent of the method.

    Attributes:
      params: the network's parameters at the start.
      stats: its batch statistics at the start; an empty dict if it has none.
      share: the samples of each worker of this process, [its workers, size, ...].
      draws: maps a first and a last step to the `Draw` of the steps between them.
      take: maps one worker's share and its draw at one step to its batch.
      loss: maps params, stats and a batch to the mean loss and new stats.
      evaluate: maps params, stats and the most samples to use (by default all) to the
        training loss, the test loss and the test accuracy.
      sample: maps params and a number of tokens to text that the network writes after
        the start of the test text; None for images.
      class_counts: the samples of each class that each worker holds; of all classes
        together if samples are read on the host.
      steps_per_epoch: steps in which every worker passes over its share once.
      steps: of the whole training.
    """

    params: Tree
    stats: Tree
    share: Split
    draws: Callable[[int, int], Draw]
    take: Callable[[Split, Draw], Batch]
    loss: Callable[[Tree, Tree, Batch], tuple[jax.Array, Tree]]
    evaluate: Callable[..., dict[str, float]]
    sample: Callable[[Tree, int], str] | None
    class_counts: NDArray[np.int64]
    steps_per_epoch: int
    steps: int


def build(config: Config, seed: int) -> Task:
    """Builds the task of a configuration for one seed; all methods train the same."""
    data = _data(config.data, config.data_file, config.window, config.fraction)
    shares = PARTITIONS[config.partition](
        data.train.labels, config.workers, config.alpha, seed
    )
    size = shares.shape[1]
    own = shares[own_workers(config.backend, config.workers, config.devices_each)]
    per_epoch = steps_per_epoch(size, config.batch_size)
    model = _network(config, data.classes)
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
        correct = jnp.argmax(jnp.asarray(logits), axis=-1) == split.labels
        return _cross_entropy(logits, split.labels).sum(), correct.sum()

    def mean(params, stats, split):
        starts = range(0, len(split.labels), _CHUNK)
        parts = [Split(*(x[i : i + _CHUNK] for x in split)) for i in starts]
        totals = [total(params, stats, part) for part in parts]
        return np.sum(totals, axis=0) / split.labels.size

    def evaluate(params, stats, most=None):
        loss, _ = mean(params, stats, _some(data.train, most))
        test_loss, accuracy = mean(params, stats, _some(data.test, most))
        return {
            "loss": float(loss),
            "test_loss": float(test_loss),
            "accuracy": float(accuracy),
        }

    share = Split(data.train.images[own], data.train.labels[own])
    drawn = functools.partial(draws, config.workers, size, config.batch_size, seed)
    if data.on_host:
        share = Split(*np.zeros((2, len(own), 1), np.uint8))
        drawn = functools.partial(windows, data.train, shares, drawn)
        take = _already_taken
    return Task(
        params=params,
        stats=variables,
        share=share,
        draws=drawn,
        take=take,
        loss=loss,
        evaluate=evaluate,
        sample=sampler(model, data),
        class_counts=(
            np.full((config.workers, 1), size)
            if data.on_host
            else class_counts(data.train.labels, shares)
        ),
        steps_per_epoch=per_epoch,
        steps=config.steps or config.epochs * per_epoch,
    )


def _network(config: Config, classes: int) -> nn.Module:
    if config.model == "gpt":
        return config.gpt.network(classes, config.window)
    return MODELS[config.model](classes)


@functools.lru_cache(maxsize=1)  # All seeds and methods of a run share it.
def _data(name: str, data_file: Path | None, window: int, fraction: float) -> Data:
    data = datasets.load(name, data_file, window)
    images = len(data.train.labels)
    if round(fraction * images) < 1:
        raise ValueError(
            f"`fraction` must leave at least one of {images:,} training images, got "
            f"{fraction}. Use a larger one."
        )
    return data._replace(train=_some(data.train, round(fraction * images)))


def _already_taken(share: Split, draw: Draw) -> Batch:
    del share
    seen = jnp.asarray(draw.chosen)
    return Batch(seen[:, :-1], seen[:, 1:], gmc_jax.worker_key(draw.key()))


def _some(split: Split, most: int | None) -> Split:
    """Draws at most `most` samples of a split; every call draws the same ones."""
    if most is None or most >= len(split.labels):
        return split
    chosen = np.random.default_rng(0).permutation(len(split.labels))[:most]
    images: Images = split.images[chosen]
    return Split(images, split.labels[chosen])


def _cross_entropy(logits, labels) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), labels
    )
