"""Runs a function for one simulated worker after another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import SENDS_NOTHING, axes_of, equations


def unrolled(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """Makes `simulate` run a function for one worker after another, unbatched.

    Without it `jax.vmap` batches the function, which suits accelerators and dense
    layers. But it turns gradients of convolutions into grouped convolutions, which are
    slow on CPUs. There `gmc_jax.unrolled(jax.value_and_grad(loss_fn))` is faster (see
    `python -m experiments bench simulate`). Under `distribute` it changes nothing.

    Args:
      fn: a function of arrays, without collectives. Everything that differs between
        workers must be an argument. Call `worker_key` outside of it.

    Returns:
      A function of the same positional arguments and results. It cannot be
      differentiated: take the gradient inside, `unrolled(jax.value_and_grad(loss_fn))`.

    Raises:
      ValueError: from the returned function, under `simulate` and `distribute` alike,
        if `fn` uses a named axis.
    """
    checks.function(fn=fn)
    traced_once = jax.jit(fn)

    @jax.custom_batching.custom_vmap
    def call(*args: Tree) -> Tree:
        return traced_once(*args)

    @call.def_vmap
    def _(workers: int, batched: list[Tree], *args: Tree) -> tuple[Tree, Tree]:
        def own(worker: int) -> list[Tree]:
            return jax.tree.map(
                lambda leaf, differs: leaf[worker] if differs else leaf,
                list(args),
                batched,
            )

        results = [traced_once(*own(worker)) for worker in range(workers)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        return stacked, jax.tree.map(lambda _: True, stacked)

    def checked(*args: Tree) -> Tree:
        named = [
            (equation.primitive.name, axis)
            for equation in equations(traced_once.trace(*args).jaxpr)
            for axis in axes_of(equation)
            if isinstance(axis, str)
        ]
        if named:
            # A collective says more than the index of the worker.
            name, axis = min(named, key=lambda found: found[0] in SENDS_NOTHING)
            raise ValueError(
                "`fn` must not use a named axis, since `unrolled` runs it for one "
                f"worker after another, got `{name}` over {axis!r}. Call collectives, "
                "channels and `worker_key` outside of it, and pass their results in."
            )
        return call(*args)

    return checked
