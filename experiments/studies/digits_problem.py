"""A perceptron on handwritten digits, for studies with their own training loop."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.datasets import digits
from experiments.data.partitions import iid
from experiments.models.networks import MODELS
from gmc_jax.core import Tree

BATCH = 16


class Problem(NamedTuple):
    """A training problem.

    Attributes:
      params: the parameters at the start.
      gradient: maps params and a batch to the loss and its gradients.
      loss: maps params to the loss on all training images.
      batch: maps a worker and the index of its gradient to the indices of its samples.
    """

    params: Tree
    gradient: Callable
    loss: Callable
    batch: Callable


def problem(workers: int, gradients: int, seed: int) -> Problem:
    """Makes the problem; the digits are divided among workers at random."""
    train = digits().train
    shares = iid(train.labels, workers, 0.0, seed)
    draw = np.random.default_rng(seed)
    chosen = draw.integers(shares.shape[1], size=(gradients, workers, BATCH))
    picked = jnp.asarray(shares[np.arange(workers)[:, None], chosen])
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    model = MODELS["mlp"](10)
    params = jax.jit(partial(model.init, train=False))(
        jax.random.key(seed), images[:1]
    )["params"]

    def loss_fn(params, samples):
        logits = jnp.asarray(
            model.apply({"params": params}, images[samples], train=True)
        )
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels[samples])
        return each.mean()

    everything = jnp.arange(len(labels))
    return Problem(
        params=params,
        gradient=jax.value_and_grad(loss_fn),
        loss=jax.jit(lambda params: loss_fn(params, everything)),
        batch=lambda worker, count: picked[count % gradients, worker],
    )
