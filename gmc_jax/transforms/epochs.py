"""Epochs of fixed or random length, and the momentum between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import upcast, update_unmasked

NextStart: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""From k, y_k, x_k and y_{k-1} to x_{k+1}, entry by entry."""


@with_hooks
class EpochsState(NamedTuple):
    """The state of epochs; float32 for 16-bit trees.

    Attributes:
      epoch: int32, k: the number of this epoch, from 1.
      length: int32, the updates in this epoch.
      done: int32, the updates of this epoch so far.
      start: x_k, where this epoch started.
      last: y_{k-1}, where the last epoch ended.
      inner: the state of the inner transformation.
    """

    epoch: jax.Array
    length: jax.Array
    done: jax.Array
    start: Tree
    last: Tree
    inner: Tree

    def evaluate(self, params: Tree) -> Tree:
        """The model is evaluated where the last epoch ended."""
        return update_unmasked(lambda x, y: y.astype(x.dtype), params, self.last)

    def conserved(self) -> Tree:
        """Both are points, not buffers."""
        return self.start, self.last


@call_repr
def epochs(
    inner: optax.GradientTransformation,
    epoch_length: int,
    next_start: NextStart | None = None,
    *,
    random_length: bool = False,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Counts the steps of each epoch, and moves the parameters to the next start.

    Epoch k leads from x_k to y_k. The next epoch starts at

        x_{k+1} = next_start(k, y_k, x_k, y_{k-1})

    and the last update of an epoch moves the parameters there. Then
    `gmc_jax.full_gradient_due(opt_state)` is true, and the loop takes the full gradient
    at that point.

    Args:
      inner: a transformation from gradients to steps.
      epoch_length: M, the updates in an epoch, at least 1; their mean number where the
        length is random.
      next_start: the momentum between epochs; None for x_{k+1} = y_k.
      random_length: whether each length is drawn from the geometric distribution on
        1, 2, ... with mean M. These are the papers' m + 1 steps, where m has
        probability (1 - 1 / M)^m / M.
      seed: the seed of the random lengths, which are the same on all workers. Epoch k
        has length `jax.random.geometric(fold_in(jax.random.key(seed), k), 1 / M)`.

    Returns:
      A transformation from gradients to steps, the last in its chain, with
      `EpochsState`. The model is evaluated at y_{k-1}, where the last epoch ended.

    Raises:
      TypeError: if `inner` is not a transformation, or `next_start` not a function.
      ValueError: if `epoch_length` is not a whole number of at least 1; from the update
        if it is called without parameters.

    References:
      Allen-Zhu, "Katyusha X", ICML 2018.
    """
    checks.transformation(inner=inner)
    checks.steps(epoch_length=epoch_length)
    if next_start is not None:
        checks.function(next_start=next_start)
    checks.flag(random_length=random_length)
    checks.seed(seed=seed)
    inner = optax.with_extra_args_support(inner)

    def length_of(epoch: jax.Array) -> jax.Array:
        if not random_length:
            return jnp.asarray(epoch_length, jnp.int32)
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        return jax.random.geometric(key, 1 / epoch_length).astype(jnp.int32)

    def init(params):
        checks.floating(params)
        first, zero = jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32)
        # Copies: the loop may donate the parameters' own memory.
        start = jax.tree.map(jnp.array, upcast(params))
        last = jax.tree.map(jnp.array, upcast(params))
        return EpochsState(
            first, length_of(first), zero, start, last, inner.init(params)
        )

    def update(updates, state, params=None, **extra_args):
        checks.floating(updates)
        require_params("epochs", params)
        out, inner_state = inner.update(updates, state.inner, params, **extra_args)
        current, out = upcast(params), upcast(out)

        def start_next_epoch() -> tuple[Tree, EpochsState]:
            end = optax.tree.add(current, out)
            start = end
            if next_start is not None:
                start_after = partial(next_start, state.epoch)
                start = jax.tree.map(start_after, end, state.start, state.last)
            epoch = state.epoch + 1
            zero = jnp.zeros_like(state.done)
            new = EpochsState(epoch, length_of(epoch), zero, start, end, inner_state)
            return difference(current, start), new

        def go_on() -> tuple[Tree, EpochsState]:
            return out, state._replace(done=state.done + 1, inner=inner_state)

        is_last = state.done + 1 >= state.length
        out, new = jax.lax.cond(is_last, start_next_epoch, go_on)
        return out, mark_updated(new)

    return optax.GradientTransformationExtraArgs(init, update)
