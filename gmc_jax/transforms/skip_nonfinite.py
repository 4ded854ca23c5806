"""Going on where one worker's NaN or Inf would poison all others."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._calls import call
from gmc_jax.channels.exact import exact
from gmc_jax.core import Tree
from gmc_jax.transforms.periodic import PeriodicState
from gmc_jax.transforms.variance_reduced import VarianceReducedState
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import downcast, find, upcast

Policy: TypeAlias = Literal["skip_step", "leave_out"]
"""What becomes of a step in which some worker's updates are not finite."""


class SkipNonfiniteState(NamedTuple):
    """The state of the guard.

    Attributes:
      skipped: int32, steps skipped so far; the same on all workers.
      left_out: int32, how many of this worker's contributions were left out of a step
        that was taken; with the policy "leave_out" it differs between workers.
      inner: the state of the inner transformation.
    """

    skipped: jax.Array
    left_out: jax.Array
    inner: Tree


@described
def skip_nonfinite(
    inner: optax.GradientTransformation,
    *,
    policy: Policy = "skip_step",
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Keeps what is not finite on some workers from the others, who decide together.

    With the policy "skip_step" all skip the step: its updates are zero and the state of
    `inner` stays as it was, residuals and schedules included. With "leave_out" the step
    is taken without those workers: of K, where F have finite gradients,

        g_k <- (K / F) g_k  where it is finite, and 0 where it is not

    goes into `inner`, so that the mean over all is the mean over the F. Where F = 0 all
    skip the step.

    All skip as well where `inner` makes of finite updates what is not finite, on any
    worker: sums of large numbers, say of an update and a residual, may be infinite.

    `optax.apply_if_finite` decides on each worker's own gradients, so that workers take
    different branches: parameters drift apart, and on several devices the program hangs
    in a collective that some never enter.

    What leaving out means behind it, all in the mean:

    * residuals: what is owed is still sent and still owed, by all workers; the mean of
      residual + out grows by the mean over the F. A worker's own residual holds (K / F)
      times what it lost of its own gradient.
    * each worker's own momentum (`dmsgd_local`, `dgc`, `cser`, `d_psgd`): that of a
      worker that is left out fades by one step, those of the others take (K / F) g_k,
      and their mean takes the mean over the F.
    * neighbours (`d_psgd`, `sgp`, `d2`): the mean of all parameters moves by the mean
      over the F; until neighbours have averaged it, a worker's own are (K / F) of its
      step ahead.
    * votes: a sign knows no factor, and nobody abstains. A worker that is left out
      votes with what it remembers (`signum`), and plus where that is nothing
      (`sign_sgd`); with many workers that is one vote.
    * local steps: a step of one's own must not be scaled, as nobody averages it. Around
      `periodic` and the methods made of it (`local_sgd`, `slowmo`, `diloco`, ...) it is
      refused, and inside, around a base that averages with nobody, it is wrong: use
      "skip_step". So it is around `variance_reduced`, which compares gradients with
      others that are not scaled.

    Args:
      inner: the whole method.
      policy: "skip_step" or "leave_out".
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in the units of `inner`, with `SkipNonfiniteState`. It sends two
      float32 more each step that is taken, and one that is skipped.

    Raises:
      NameError: from the update where no such axis is in scope.
      TypeError: if `inner` is no transformation.
      ValueError: if `policy` is another; from `init` if it is "leave_out" and `inner`
        takes local steps, or reduces variance.

    Guarantees:
      All workers skip the same steps, and what is the same on all stays so.
      With finite updates, into `inner` and out of it, it is `inner`, bit for bit. What
        comes out of the guard is finite.
      Leaving out, the mean through a channel is that over the workers whose updates are
      finite, and nothing of the others' reaches anybody.
    """
    checks.transformation(inner=inner)
    checks.known(policy=policy)
    if policy not in get_args(Policy):
        raise ValueError(
            "`policy` says what becomes of a step in which some worker's updates are "
            f"not finite, and must be one of {get_args(Policy)}, but is "
            f"{checks.shown(policy)}."
        )
    checks.axis(axis_name=axis_name)
    inner = optax.with_extra_args_support(inner)
    vote = exact(axis_name=axis_name)
    leaves_out = policy == "leave_out"

    def share_of_workers(flag: jax.Array) -> jax.Array:
        share, _, _ = call(vote, flag.astype(jnp.result_type(float)), ())
        return share

    def init(params):
        inner_state = inner.init(params)
        if leaves_out:
            _check_averages_steps(inner_state)
        none = jnp.zeros((), jnp.int32)
        return SkipNonfiniteState(none, none, inner_state)

    def update(updates, state, params=None, **extra_args):
        workers = workers_on(axis_name, "skip_nonfinite")
        mine = _broken(updates)
        share = share_of_workers(mine)
        skips = share == 1 if leaves_out else share > 0
        if leaves_out:
            finite = workers - jnp.round(workers * share)
            updates = _without(updates, mine, workers / jnp.where(skips, 1, finite))

        def go() -> tuple[Tree, Tree, jax.Array]:
            out, inner_state = inner.update(updates, state.inner, params, **extra_args)
            overflows = share_of_workers(_broken(out)) > 0
            taken = out, inner_state
            nothing = optax.tree.zeros_like(out), state.inner
            return *jax.lax.cond(overflows, lambda: nothing, lambda: taken), overflows

        def skip() -> tuple[Tree, Tree, jax.Array]:
            out, _, _ = jax.eval_shape(go)
            return optax.tree.zeros_like(out), state.inner, jnp.array(True)

        out, inner_state, skipped = jax.lax.cond(skips, skip, go)
        left_out = state.left_out
        if leaves_out:
            left_out += (mine & ~skipped).astype(jnp.int32)
        count = state.skipped + skipped.astype(jnp.int32)
        return out, SkipNonfiniteState(count, left_out, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _broken(tree: Tree) -> jax.Array:
    """Whether anything in a tree is not finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if _is_inexact(leaf)]
    broken = [jnp.any(~jnp.isfinite(leaf)) for leaf in leaves]
    return jnp.any(jnp.array(broken, bool))


def _without(updates: Tree, broken: jax.Array, factor: jax.Array) -> Tree:
    """Nothing where this worker is broken; else its updates times a factor.

    What is not floating, such as an integer, passes as it is.
    """

    def scale(leaf: jax.Array) -> jax.Array:
        if not _is_inexact(leaf):
            return leaf
        wide = upcast(leaf)
        most = jnp.finfo(wide.dtype).max
        scaled = jnp.clip(wide * factor.astype(wide.dtype), -most, most)
        return downcast(jnp.where(broken, 0, scaled), leaf)

    return jax.tree.map(scale, updates)


def _is_inexact(leaf: jax.typing.ArrayLike) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _check_averages_steps(state: Tree) -> None:
    for kind, does in (
        (PeriodicState, "takes local steps, which nobody averages"),
        (VarianceReducedState, "compares gradients with others, at a snapshot"),
    ):
        if find(state, kind):
            raise ValueError(
                "`policy` is 'leave_out', which scales the gradients of the workers "
                f"that are finite, but `inner` {does}, so that they must not be "
                "scaled. Use `policy='skip_step'`."
            )
