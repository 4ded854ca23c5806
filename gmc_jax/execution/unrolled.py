"""A function run for one worker after another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import axes_of, equations


def unrolled(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """Makes `simulate` run a function once a worker, one after another, in the program.

    By itself `jax.vmap` batches it, which suits accelerators and dense layers. The
    gradients of convolutions, however, become grouped convolutions, which are slow on
    CPUs: there `gmc_jax.unrolled(jax.value_and_grad(loss_fn))` is faster (see
    `python -m experiments bench simulate`). On one worker a device it changes nothing.

    Args:
      fn: a function of arrays alone, without collectives. Everything that differs
        between workers must be an argument, and `worker_key` be called outside of it.

    Returns:
      A function of the same positional arguments and results, which cannot be
      differentiated: take the gradient inside, `unrolled(jax.value_and_grad(loss_fn))`.

    Raises:
      ValueError: from that function if `fn` uses a named axis, under every runner.
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
        for equation in equations(traced_once.trace(*args).jaxpr):
            axes = [axis for axis in axes_of(equation) if isinstance(axis, str)]
            if axes:
                raise ValueError(
                    "`unrolled` runs a function for one worker after another, so that "
                    "it must not use their axis, but it calls "
                    f"`{equation.primitive.name}` over {axes[0]!r}. Call collectives, "
                    "channels and `worker_key` outside of it, and pass in what they "
                    "give."
                )
        return call(*args)

    return checked
