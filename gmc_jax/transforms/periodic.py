"""Local steps, and a meeting of all workers after every few of them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.transforms.buffers import Buffers, maintain_buffers
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted
from gmc_jax.utils import checks
from gmc_jax.utils.caller_warnings import warn_caller
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import downcast, find, map_unmasked, upcast

Period: TypeAlias = int | optax.Schedule
"""Local steps between two meetings, or a schedule of them by the step."""


@with_hooks
class PeriodicState(NamedTuple):
    """The state of periodic meetings; float32 for 16-bit trees.

    Attributes:
      step: int32, updates so far.
      local: int32, updates since workers last met.
      anchor: where they met, or started; the same on all workers if `outer` averages.
      inner: the state of the base, as a rule each worker's own.
      outer: the state of what moves the anchor; its updates are the meetings.
      buffers: the state of the strategy for the base's buffers.
    """

    step: jax.Array
    local: jax.Array
    anchor: Tree
    inner: Tree
    outer: Tree
    buffers: Tree

    def on_sync(self, start: Tree, end: Tree) -> PeriodicState:
        """Inside another one, its own next meeting starts from where that one led."""
        return self._replace(
            local=jnp.zeros_like(self.local),
            anchor=map_unmasked(lambda _, new: new, self.anchor, end),
            inner=on_sync(self.inner, start, end),
        )

    def conserved(self) -> Tree:
        """An anchor is a point, and no buffer; what moves it may have some."""
        return self.anchor, self.buffers


@described
def periodic(
    inner: optax.GradientTransformation,
    outer: optax.GradientTransformation,
    period: Period,
    *,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Lets each worker go its own way with `inner`, and brings all together again.

        x_k <- x_k + inner(g_k)
        after every `period` updates:
        z <- z + outer(z - x_k);  x_k <- z

    Here z, the anchor, is where workers last met, and z - x_k how far this one has
    come, signed like a gradient: it leads back. So `outer` is a method in its own
    right, which averages over workers and says how far the anchor follows:

        local SGD, FedAvg    chain(averaged(exact()), scale(-1))
        SlowMo, BMUF         chain(averaged(exact()), slow momentum)
        DiLoCo               chain(averaged(exact()), sgd(0.7, momentum=0.9, nesterov))
        Qsparse-local-SGD    chain(error_feedback(channel), scale(-1))
        GMC, at the meetings gmc(1.0, channel, momentum=0.9)

    The meeting is a branch of a conditional that all workers take at the same updates,
    so in between nothing of it is computed or sent.

    It stands last in its chain, since the update that is returned leads from the
    parameters to the anchor: behind it `optax.scale(0.5)` would lead every worker half
    of its way there, and no error tells of it. Rates, clipping and weight decay belong
    into `inner`, and `init` is to be called anew after changing parameters by hand. To
    skip what is not finite, put it into `skip_nonfinite`, which all workers
    decide together, and not into `optax.apply_if_finite`, which each decides alone.

    Args:
      inner: the base: any method from gradients to steps, learning rate included. It
        may communicate at every step, through `gossip` or `exact`, or be `periodic`
        itself. States of others that remember where parameters were do not learn of
        meetings: use `reset_buffers()` over them. For optax's schedule-free optimizers
        a warning says so, unless `buffers` is given.
      outer: from z - x_k (float32 for 16-bit parameters) to what the anchor moves by.
      period: local steps between two meetings, at least 1: a number, or a function of
        the step, which is asked at every step whether so many have gone by.
      buffers: what becomes of the base's buffers at a meeting: `maintain_buffers()`,
        the default, `reset_buffers()` or `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, with `PeriodicState`. Parameters differ
      between workers: judge the model at their mean, which `gmc_jax.evaluate` returns.

    Raises:
      TypeError: if `inner` or `outer` is no transformation, or `buffers` no strategy.
      ValueError: if `period` is a number but not a whole one of at least 1; from the
        update if it is called without parameters.

    Guarantees:
      Where `outer` averages, the anchor is the same on all workers bit for bit, and
      right after a meeting each worker is at the anchor, to one rounding of x_k, which
      does not add up.
      Between meetings it is `inner`, and nothing of `outer` is sent.
      What `inner` conserves a meeting conserves, whatever becomes of buffers: of
      gossip's messages, residuals, anchors, corrections and trackers nothing is lost.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020; Douillard et al., "DiLoCo",
      2023; Basu et al., "Qsparse-local-SGD", NeurIPS 2019.
    """
    if not callable(period):
        checks.steps(period=period)
    checks.transformation(inner=inner, outer=outer)
    is_default = buffers is None
    buffers = maintain_buffers() if buffers is None else buffers
    if not isinstance(buffers, Buffers):
        raise TypeError(
            "`buffers` must be a strategy, such as `reset_buffers()` or "
            f"`average_buffers(exact())`, but is {buffers!r}."
        )
    inner = optax.with_extra_args_support(inner)
    outer = optax.with_extra_args_support(outer)

    def init(params):
        checks.floating(params)
        own = inner.init(params)
        if is_default and find(own, optax.contrib.ScheduleFreeState):
            warn_caller(
                "`inner` is schedule-free: it remembers a point (z) of its own, which "
                "would not follow where workers meet. Pass `buffers=reset_buffers()`, "
                "or `maintain_buffers()` if it is meant to stay."
            )
        # A copy: the loop may donate the parameters' own memory.
        anchor = jax.tree.map(jnp.array, upcast(params))
        return PeriodicState(
            step=jnp.zeros((), jnp.int32),
            local=jnp.zeros((), jnp.int32),
            anchor=anchor,
            inner=own,
            outer=outer.init(anchor),
            buffers=buffers.init(inner, own),
        )

    def update(updates, state, params=None, **extra_args):
        checks.floating(updates)
        require_params("periodic", params)
        out, own = inner.update(updates, state.inner, params, **extra_args)
        start, out = upcast(params), upcast(out)
        ahead = optax.tree.add(start, out)

        def meet() -> tuple[Tree, Tree, Tree, Tree, Tree]:
            back = sync_weighted(difference(ahead, state.anchor), own)
            there = downcast(state.anchor, params)  # In the dtypes to be sent in.
            move, outer_state = outer.update(back, state.outer, there)
            anchor = optax.tree.add(state.anchor, move)
            fresh = inner.init(downcast(anchor, params))
            carried = on_sync(own, ahead, anchor)
            met, rest = buffers.meet(inner, carried, fresh, state.buffers)
            return difference(start, anchor), anchor, met, outer_state, rest

        def go_on() -> tuple[Tree, Tree, Tree, Tree, Tree]:
            return out, state.anchor, own, state.outer, state.buffers

        step = jnp.asarray(optax.safe_increment(state.step))
        local = jnp.asarray(optax.safe_increment(state.local))
        due = local >= (period(state.step) if callable(period) else period)
        out, anchor, own, outer_state, rest = jax.lax.cond(due, meet, go_on)
        local = jnp.where(due, 0, local)
        return out, PeriodicState(step, local, anchor, own, outer_state, rest)

    return optax.GradientTransformationExtraArgs(init, update)
