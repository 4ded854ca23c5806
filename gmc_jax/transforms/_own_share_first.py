"""Averages whose own share counts at once and the rest one update late."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._axis import workers_on
from gmc_jax.core import Tree, with_hooks
from gmc_jax.utils.trees import times, upcast, upcast_floating, zeros_to_accumulate


@with_hooks
class OwnShareFirstState(NamedTuple):
    """The state of averages that count a worker's own share first.

    Attributes:
      sent: the last updates of this worker, which the others have not received yet.
      share: the factor by which this worker has counted them already: one over the
        number of workers at that time. It is kept, since that number may change.
      inner: the state of the transformation that averages.
    """

    sent: Tree
    share: jax.Array
    inner: Tree

    def conserved(self) -> Tree:
        """The others still add what was sent."""
        return self.sent, self.share, self.inner


def own_share_first(
    average: optax.GradientTransformation, axis_name: str
) -> optax.GradientTransformationExtraArgs:
    """Averages the last updates, and counts the share of the worker's own at once.

        out_k(t) = average(u(t - 1)) + (u_k(t) - u_k(t - 1)) / K

    No operand of a collective depends on this call's updates.

    Args:
      average: averages updates over workers.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in the units of `average`, with `OwnShareFirstState`.
    """
    average = optax.with_extra_args_support(average)

    def init(params):
        return OwnShareFirstState(
            sent=zeros_to_accumulate(params),
            share=jnp.zeros((), jnp.result_type(float)),
            inner=average.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        updates = upcast_floating(updates)
        mean, inner = average.update(state.sent, state.inner, params, **extra_args)
        share = jnp.asarray(1 / workers_on(axis_name, "eager"), state.share.dtype)
        out = jax.tree.map(
            lambda m, u, last: m + (times(share, u) - times(state.share, last)),
            upcast(mean),
            updates,
            state.sent,
        )
        return out, OwnShareFirstState(updates, share, inner)

    return optax.GradientTransformationExtraArgs(init, update)
