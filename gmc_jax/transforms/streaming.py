"""Local steps, and synchronisations of one fragment of the parameters at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._float32_init import init_in_float32
from gmc_jax.transforms._fragments import Division, Fragments, divide
from gmc_jax.transforms._mirrors import mirrors
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.transforms.merges import Merge, mix
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import downcast, find_hooks, map_unmasked, upcast


@with_hooks
class StreamingState(NamedTuple):
    """The state of streaming synchronisation; float32 for 16-bit trees.

    Attributes:
      step: int32, updates so far. After two periods it goes back by a whole one.
      anchor: the point of the last synchronisation of each fragment, or the start; the
        same on all workers if the averages are.
      sent: this worker's parameters of when it sent its last pseudo-gradient, while
        that is in flight; it differs between workers. Empty without a delay.
      inner: the state of the inner optimizer; in general it differs between workers.
      outer: for each fragment, the states of the average and the outer optimizer; a
        single number for parameters without leaves.
    """

    step: jax.Array
    anchor: Tree
    sent: Tree
    inner: Tree
    outer: tuple[Tree, ...] | jax.Array

    def on_sync(self, start: Tree, end: Tree) -> StreamingState:
        """Inside `periodic`, the next period starts at the outer anchor.

        The outer pseudo-gradients hold what is in flight, so it must not count again.
        """
        return self._replace(
            anchor=_moved_to(self.anchor, end),
            sent=_moved_to(self.sent, end) if jax.tree.leaves(self.sent) else self.sent,
            inner=on_sync(self.inner, start, end),
        )

    def conserved(self) -> Tree:
        """The anchor is a point, and anchor minus `sent` is in flight.

        States of fragments are no buffers, since they do not mirror the parameters.
        """
        return self.anchor, self.sent, self.outer


@call_repr
def streaming(
    inner: optax.GradientTransformation,
    average: optax.GradientTransformation,
    outer: optax.GradientTransformation,
    period: int,
    *,
    fragments: Fragments = None,
    delay: int = 0,
    merge: Merge | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps with `inner`, and synchronises one fragment at a time.

        x_k <- x_k + inner(g_k)
        where fragment p is due, on p alone:
        s_k <- x_k
        `delay` steps later:
        z <- z + outer(average(z - s_k));  x_k <- merge(x_k, s_k, z)

    It is `periodic` with `chain(average, outer)` over fragments of the parameters. Of P
    fragments each synchronises every `period` steps, fragment p for the first time
    after ceil((p + 1) period / P). So at most one of them is sent at a step. The most
    that a step sends is P times less than under `periodic` if fragments are of one
    size. The mean over steps is the same. Each fragment has an `average` and an `outer`
    state of its own. Some choices:

        Streaming DiLoCo     averaged(exact()), sgd(0.4, 0.9, nesterov=True)
        error feedback       error_feedback(channel), scale(-1)
        outer GMC            global_momentum(error_feedback(channel), 0.9), scale(-1)

    With a `delay` no worker waits for what it sends. The collectives of step t + delay
    take their operands from the state before that step. So they may run while the
    gradients are computed. The anchor of a fragment does not move between sending and
    merging.

    Each synchronisation is a branch of a conditional that all workers take at the same
    updates. It stands last in its chain, as `periodic` does, and for the same reasons.
    The inner optimizer's buffers are maintained.

    Args:
      inner: the inner optimizer: any method from gradients to steps, learning rate
        included.
      average: averages pseudo-gradients over workers. Values travel in the dtypes of
        the parameters.
      outer: the outer optimizer, from mean pseudo-gradients (float32 for 16-bit
        parameters) to steps of the anchor.
      period: local steps between two synchronisations of a fragment, at least 1 and at
        least the number of fragments.
      fragments: how leaves are divided. None: each layer is a fragment. A number P:
        layers are dealt to P fragments in turn. A function: from the path of a leaf,
        such as "params/layer_0/kernel", to the number of its fragment. Fragments
        synchronise in the order of their numbers. A layer is a node of the tree where
        the tree first branches. Leaves at the branching are one layer. A leaf is never
        divided.
      delay: steps from sending to merging, from 0 to `period`.
      merge: the strategy by which a worker takes in what arrives: `mix(0.0)`, the
        default, where the anchor replaces the worker's parameters, `mix(alpha)`,
        `corrected()` or `eager()`.

    Returns:
      A transformation from gradients to steps, with `StreamingState`. Parameters differ
      between workers: evaluate the model at their mean, `gmc_jax.evaluate`.

    Raises:
      TypeError: if `inner`, `average` or `outer` is not a transformation, `fragments`
        neither a number nor a function, or `merge` not a strategy.
      ValueError: if `period` is not a whole number of at least 1, `delay` not one from
        0 to `period`, or the strategy cannot have this delay. From `init` if there are
        more fragments than layers or than steps in a period, or if `inner` weighs
        workers, as push-sum does, and there is a delay. From the update if it is called
        without parameters.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.streaming(
      ...     optax.adam(1e-3),
      ...     gmc_jax.error_feedback(gmc_jax.all_gather(gmc_jax.top_k(0.01))),
      ...     optax.scale(-1.0),
      ...     period=30,
      ...     fragments=3,
      ...     delay=2,
      ...     merge=gmc_jax.corrected(),
      ... )

    Guarantees:
      With one fragment, no delay and `mix(0.0)` it is `periodic`, bit for bit.
      With `mix(1.0)` workers never receive anything.
      With `corrected()` the mean over workers follows the sum of all inner steps, for
        any delay, if `outer` is `scale(-1)` and `average` the exact mean.
      Where `average` gives the same mean everywhere, the anchor is the same on all
        workers bit for bit.
      With a delay, no operand of a collective depends on this step's gradients.
      The inner optimizer's hooks see a synchronisation that moves one fragment.

    References:
      Douillard et al., "Streaming DiLoCo with Overlapping Communication: Towards a
      Distributed Free Lunch", 2025, arXiv:2501.18512; Kale, Douillard and Donchev,
      "Eager Updates for Overlapped Communication and Computation in DiLoCo", 2025.
    """
    checks.transformation(inner=inner, average=average, outer=outer)
    checks.positive_int(period=period)
    checks.nonnegative_int(delay=delay)
    if fragments is not None and not callable(fragments):
        checks.positive_int(fragments=fragments)
    merge = mix(0.0) if merge is None else merge
    if not isinstance(merge, Merge):
        raise TypeError(
            "`merge` must be a strategy by which workers take in what arrives, got "
            f"{checks.shown(merge)}; write `mix(0.5)`, `corrected()` or `eager()`."
        )
    if delay > period:
        raise ValueError(
            f"`delay` must be at most `period`, {period}, got {delay}; a fragment has "
            "one message in flight."
        )
    wait = merge.wait(delay, period)
    inner = optax.with_extra_args_support(inner)
    both = optax.chain(merge.average(average), outer)

    def init(params):
        checks.floating(params)
        inner_state = inner.init(params)
        if wait and find_hooks(inner_state, "sync_weighted"):
            raise ValueError(
                f"`delay` must be 0 for an `inner` that weighs workers, got {delay}; "
                "its weights change while pseudo-gradients are in flight."
            )
        division = divide(params, fragments, period)
        # Copies: the loop may donate the parameters' own memory.
        own = jax.tree.map(jnp.array, params)
        outer_states = tuple(
            init_in_float32(both, division.part(own, fragment))
            for fragment in range(division.total)
        )
        return StreamingState(
            step=jnp.zeros((), jnp.int32),
            anchor=upcast(own),
            sent=upcast(jax.tree.map(jnp.array, params)) if wait else (),
            inner=inner_state,
            # `optax.tree.map_params` calls `init` without leaves. A number stands for
            # any number of states, none of which mirrors all parameters.
            outer=outer_states or jnp.zeros(()),
        )

    def update(updates, state, params=None, **extra_args):
        checks.floating(updates)
        require_params("streaming", params)
        division = divide(params, fragments, period)
        local_step, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )
        start, local_step = upcast(params), upcast(local_step)
        end = optax.tree.add(start, local_step)
        # It goes on in whole periods, after the first of which everything has been due.
        step = jnp.where(state.step < 2 * period, state.step + 1, period + 1)
        sending, arriving = (division.due(step - age, period) for age in (0, wait))
        sent = state.sent if wait else end

        def advance(fragment: int) -> tuple[Tree, tuple[Tree, ...]]:
            """Takes the outer step of a fragment, from the state alone if it waits."""
            whole = sync_weighted(difference(sent, state.anchor), inner_state)
            # Values travel in the dtypes of these parameters.
            anchor_params = downcast(state.anchor, params)
            outer_step, outer_state = both.update(
                division.part(whole, fragment),
                state.outer[fragment],
                division.part(anchor_params, fragment),
            )
            old = division.part(state.anchor, fragment)
            anchor = optax.tree.add(old, outer_step)
            before, after = state.outer[:fragment], state.outer[fragment + 1 :]
            return (
                division.replace(state.anchor, fragment, anchor),
                (*before, outer_state, *after),
            )

        anchor, outer_states = _in_turn(
            arriving, division, (state.anchor, state.outer), advance
        )

        def take_in(fragment: int) -> tuple[Tree, Tree, Tree]:
            """Moves the worker's own fragment."""
            now, when_sent, new = (
                division.part(tree, fragment) for tree in (end, sent, anchor)
            )
            merged = merge.combine(now, when_sent, new)
            out = difference(division.part(start, fragment), merged)
            point = division.replace(end, fragment, merged)
            return (
                division.replace(local_step, fragment, out),
                point,
                _moved(inner, inner_state, division, fragment, end, point),
            )

        out, point, own = _in_turn(
            arriving, division, (local_step, end, inner_state), take_in
        )

        def send(fragment: int) -> Tree:
            return division.replace(sent, fragment, division.part(point, fragment))

        in_flight = _in_turn(sending, division, sent, send) if wait else ()
        return out, StreamingState(step, anchor, in_flight, own, outer_states)

    return optax.GradientTransformationExtraArgs(init, update)


def _in_turn(
    due: jax.Array, division: Division, same: Tree, act: Callable[[int], Tree]
) -> Tree:
    """Acts on the fragment that is due; returns `same` if there is none."""
    branches = [partial(act, fragment) for fragment in range(division.total)]
    return jax.lax.switch(due, [lambda: same, *branches])


def _moved(
    inner: optax.GradientTransformation,
    state: Tree,
    division: Division,
    fragment: int,
    start: Tree,
    end: Tree,
) -> Tree:
    """The inner optimizer's state after one fragment has moved.

    A hook moves the whole state. Of that, only what mirrors the fragment is taken.
    """
    if not find_hooks(state, "on_sync"):
        return state
    moved = on_sync(state, start, end)
    if division.total == 1:
        return moved
    of_fragment = mirrors(inner, state, division.flags(start, fragment))
    return jax.tree.map(
        lambda own, new, old: new if own else old, of_fragment, moved, state
    )


def _moved_to(tree: Tree, end: Tree) -> Tree:
    return map_unmasked(lambda _, new: new, tree, end)
