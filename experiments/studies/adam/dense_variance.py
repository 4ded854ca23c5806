"""Adam's second moment of the dense mean gradient: an experiment, since it sends all.

It tells whether compressed gradients need a better second moment than their own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import gmc_jax
from gmc_jax.core import Channel, Tree

MOMENTUM, DECAY, EPSILON = 0.9, 0.999, 1e-8  # As of `optax.adam`.


class DenseVarianceState(NamedTuple):
    """The state of `with_dense_variance`.

    Attributes:
      step: int32, updates so far.
      variance: the average of squares of the mean gradient; the same on all workers.
      inner: the state of the inner transformation.
    """

    step: jax.Array
    variance: Tree
    inner: Tree


def with_dense_variance(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Gives `inner` the root of the second moment of the dense mean, as `root`."""
    inner = optax.with_extra_args_support(inner)
    channel = gmc_jax.exact()

    def init(params):
        zeros = optax.tree.zeros_like(params)
        return DenseVarianceState(jnp.zeros((), jnp.int32), zeros, inner.init(params))

    def update(updates, state, params=None, **extra_args):
        mean, _, _ = channel.average(updates, channel.init(updates))
        variance = optax.tree.update_moment(mean, state.variance, DECAY, 2)
        step = state.step + 1
        corrected = optax.tree.bias_correction(variance, DECAY, step)
        root = jax.tree.map(lambda v: jnp.sqrt(v) + EPSILON, corrected)
        out, inner_state = inner.update(
            updates, state.inner, params, root=root, **extra_args
        )
        return out, DenseVarianceState(step, variance, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def divide_by_root() -> optax.GradientTransformationExtraArgs:
    """Divides updates by `root`."""

    def update(updates, state, params=None, **extra_args):
        del params
        return jax.tree.map(jnp.divide, updates, extra_args["root"]), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def in_front(channel: Channel, rate: optax.ScalarOrSchedule):
    """Error feedback in front of Adam with the second moment of the dense mean."""
    return with_dense_variance(
        optax.chain(
            gmc_jax.error_feedback(channel),
            optax.ema(MOMENTUM),
            divide_by_root(),
            optax.scale_by_learning_rate(rate),
        )
    )


def behind(channel: Channel, rate: optax.ScalarOrSchedule):
    """Error feedback behind local momenta over the second moment of the dense mean."""
    return with_dense_variance(
        optax.chain(
            optax.ema(MOMENTUM),
            divide_by_root(),
            optax.scale_by_learning_rate(rate),
            gmc_jax.error_feedback(channel),
        )
    )
