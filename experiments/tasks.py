"""A task: data shared out over workers, a network, its loss and how it is judged."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import Config
from experiments.data import DATA, Indices, Split, batch, steps_per_epoch
from experiments.models import MODELS
from experiments.partitions import PARTITIONS, class_counts
from gmc_jax.core import Tree

_CHUNK = 1000  # Images judged at a time, to bound the memory.


class Task(NamedTuple):
    """What a method is given to train, and nothing about the method."""

    params: Tree
    loss: Callable[[Tree, Split], jax.Array]
    batches: Callable[[int], Split]
    judge: Callable[[Tree], dict[str, float]]
    class_counts: Indices
    steps: int


def build(config: Config) -> Task:
    """The task that `config` describes; the same one for every method."""
    data = DATA[config.data]()
    labels = data.train.labels
    share = PARTITIONS[config.partition]
    shares = share(labels, config.workers, config.alpha, config.seed)
    model = MODELS[config.model](data.classes)

    def measure(params, split):
        logits = jnp.asarray(model.apply(params, split.images))
        loss = optax.losses.softmax_cross_entropy_with_integer_labels
        return loss(logits, split.labels), logits.argmax(-1) == split.labels

    @jax.jit
    def total(params, split):
        return jax.tree.map(jnp.sum, measure(params, split))

    def mean(params, split):
        starts = range(0, len(split.labels), _CHUNK)
        parts = [Split(*(x[i : i + _CHUNK] for x in split)) for i in starts]
        return np.sum([total(params, part) for part in parts], 0) / len(split.labels)

    def judge(params):
        loss, _ = mean(params, data.train)
        _, accuracy = mean(params, data.test)
        return {"loss": float(loss), "accuracy": float(accuracy)}

    size = config.batch_size
    return Task(
        params=jax.jit(model.init)(jax.random.key(config.seed), data.train.images[:1]),
        loss=lambda params, split: measure(params, split)[0].mean(),
        batches=lambda step: batch(data.train, shares, size, config.seed, step),
        judge=judge,
        class_counts=class_counts(labels, shares),
        steps=config.steps or config.epochs * steps_per_epoch(shares, size),
    )
