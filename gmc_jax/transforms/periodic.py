"""Local steps, and a synchronisation of all workers after every few of them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._float32_init import init_in_float32
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.transforms.buffers import Buffers, maintain_buffers
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.caller_warnings import warn_caller
from gmc_jax.utils.trees import downcast, find, map_unmasked, upcast

Period: TypeAlias = int | optax.Schedule
"""Local steps between two synchronisations, or a schedule of them by the step."""


@with_hooks
class PeriodicState(NamedTuple):
    """The state of periodic synchronisation; float32 for 16-bit trees.

    Attributes:
      step: int32, updates so far.
      local: int32, updates since the last synchronisation.
      anchor: the point of the last synchronisation, or the start; the same on all
        workers if `outer` averages.
      inner: the state of the inner optimizer; in general it differs between workers.
      outer: the state of the outer optimizer, which is updated at synchronisations.
      buffers: the state of the strategy for the inner optimizer's buffers.
    """

    step: jax.Array
    local: jax.Array
    anchor: Tree
    inner: Tree
    outer: Tree
    buffers: Tree

    def on_sync(self, start: Tree, end: Tree) -> PeriodicState:
        """Inside another `periodic`, the next period starts at the outer anchor."""
        return self._replace(
            local=jnp.zeros_like(self.local),
            anchor=map_unmasked(lambda _, new: new, self.anchor, end),
            inner=on_sync(self.inner, start, end),
        )

    def conserved(self) -> Tree:
        """The anchor is a point, not a buffer; the outer optimizer may have buffers."""
        return self.anchor, self.buffers


@call_repr
def periodic(
    inner: optax.GradientTransformation,
    outer: optax.GradientTransformation,
    period: Period,
    *,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps with `inner` on each worker, and synchronises periodically.

        x_k <- x_k + inner(g_k)
        after every `period` updates:
        z <- z + outer(z - x_k);  x_k <- z

    The anchor z is the point of the last synchronisation. The pseudo-gradient z - x_k
    is how far this worker has moved, signed like a gradient: it points back to the
    anchor. `outer` is a method of its own: it averages pseudo-gradients over workers,
    and says how far the anchor follows. Some choices of `outer`:

        local SGD, FedAvg    chain(averaged(exact()), scale(-1))
        SlowMo               chain(averaged(exact()), slow_momentum(1.0, 0.5))
        BMUF                 chain(averaged(exact()), trace(0.5), scale(-1))
        DiLoCo               chain(averaged(exact()), sgd(0.7, 0.9, nesterov=True))
        Qsparse-local-SGD    chain(error_feedback(channel), scale(-1))
        outer GMC            gmc(1.0, channel, momentum=0.9)

    The synchronisation is a branch of a conditional that all workers take at the same
    updates. The steps in between compute and send nothing of it.

    It stands last in its chain, since its update at a synchronisation moves the
    parameters to the anchor. Behind it `optax.scale(0.5)` would move every worker only
    half of the way, without an error. Learning rates, clipping and weight decay belong
    into `inner`. Call `init` again after changing parameters by hand. To skip steps
    that are not finite, put it into `skip_nonfinite`, which decides for all workers
    together, and not into `optax.apply_if_finite`, which decides on each alone.

    Args:
      inner: the inner optimizer: any method from gradients to steps, learning rate
        included. It may communicate at every step, through `gossip` or `exact`, or be
        `periodic` itself. Optimizers from elsewhere that store a point of their own do
        not follow synchronisations: use `reset_buffers()` for them. With optax's
        schedule-free optimizers a warning says so, unless `buffers` is given.
      outer: the outer optimizer, from pseudo-gradients (float32 for 16-bit parameters)
        to steps of the anchor.
      period: local steps between two synchronisations, at least 1: a number, or a
        function of the step. Its value is compared at every step with the number of
        local steps since the last synchronisation.
      buffers: the strategy for the inner optimizer's buffers: `maintain_buffers()`, the
        default, `reset_buffers()` or `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, with `PeriodicState`. Parameters differ
      between workers: evaluate the model at their mean, `gmc_jax.evaluate`.

    Raises:
      TypeError: if `inner` or `outer` is not a transformation, or `buffers` not a
        strategy.
      ValueError: if `period` is a number but not a whole number of at least 1; from the
        update if it is called without parameters.

    Guarantees:
      Where `outer` averages, the anchor is the same on all workers bit for bit. Right
        after a synchronisation each worker is at the anchor, to one rounding of x_k;
        these roundings do not add up.
      Between synchronisations it is `inner`, and nothing of `outer` is sent.
      Synchronisations conserve what `inner` conserves, whatever the strategy for
        buffers: gossip's messages, residuals, anchors, corrections and trackers.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020; Douillard et al., "DiLoCo",
      2023; Basu et al., "Qsparse-local-SGD", NeurIPS 2019.
    """
    checks.transformation(inner=inner, outer=outer)
    if not callable(period):
        checks.steps(period=period)
    is_default = buffers is None
    buffers = maintain_buffers() if buffers is None else buffers
    if not isinstance(buffers, Buffers):
        raise TypeError(
            "`buffers` must be a strategy for the inner optimizer's buffers, got "
            f"{checks.shown(buffers)}; write `reset_buffers()`, or "
            "`average_buffers(exact())`."
        )
    inner = optax.with_extra_args_support(inner)
    outer = optax.with_extra_args_support(outer)

    def init(params):
        checks.floating(params)
        inner_state = inner.init(params)
        if is_default and find(inner_state, optax.contrib.ScheduleFreeState):
            warn_caller(
                "`inner` is schedule-free: it stores a point (z) of its own, which "
                "does not follow synchronisations. Pass `buffers=reset_buffers()`, or "
                "`maintain_buffers()` to keep that point."
            )
        # A copy: the loop may donate the parameters' own memory.
        own = jax.tree.map(jnp.array, params)
        return PeriodicState(
            step=jnp.zeros((), jnp.int32),
            local=jnp.zeros((), jnp.int32),
            anchor=upcast(own),
            inner=inner_state,
            outer=init_in_float32(outer, own),
            buffers=buffers.init(inner, inner_state),
        )

    def update(updates, state, params=None, **extra_args):
        checks.floating(updates)
        require_params("periodic", params)
        local_step, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )
        start, local_step = upcast(params), upcast(local_step)
        end = optax.tree.add(start, local_step)

        def synchronise() -> tuple[Tree, Tree, Tree, Tree, Tree]:
            pseudo_gradient = sync_weighted(difference(end, state.anchor), inner_state)
            # Values travel in the dtypes of these parameters.
            anchor_params = downcast(state.anchor, params)
            outer_step, outer_state = outer.update(
                pseudo_gradient, state.outer, anchor_params
            )
            anchor = optax.tree.add(state.anchor, outer_step)
            fresh = inner.init(downcast(anchor, params))
            moved = on_sync(inner_state, end, anchor)
            synced, buffers_state = buffers.synchronise(
                inner, moved, fresh, state.buffers
            )
            out = difference(start, anchor)
            return out, anchor, synced, outer_state, buffers_state

        def stay_local() -> tuple[Tree, Tree, Tree, Tree, Tree]:
            return local_step, state.anchor, inner_state, state.outer, state.buffers

        step = jnp.asarray(optax.safe_increment(state.step))
        local = jnp.asarray(optax.safe_increment(state.local))
        due = local >= (period(state.step) if callable(period) else period)
        out, anchor, own, outer_state, buffers_state = jax.lax.cond(
            due, synchronise, stay_local
        )
        local = jnp.where(due, 0, local)
        return out, PeriodicState(step, local, anchor, own, outer_state, buffers_state)

    return optax.GradientTransformationExtraArgs(init, update)
