"""Warnings about random draws that workers or steps repeat."""

from collections.abc import Iterator

import jax
from jax.extend.core import JaxprEqn

from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Program
from gmc_jax.utils.origins import Origin, visit_origins

_DRAWS = ("random_bits", "random_gamma")
"""Primitives that draw with a key, which is their first operand."""


def draw_warnings(program: Program, differs: Tree, axis_name: str) -> Iterator[str]:
    """Yields the warnings about draws inside the gradients of a traced step.

    Draws outside of gradients are those of channels and optimizers, which all workers
    must share, or of augmentations.

    Args:
      program: one worker's step, from the leaves of state and batch to those of the
        new state.
      differs: for each leaf of the state, whether it differs between workers.
      axis_name: the named axis that the step averages over.
    """
    if not any(_draws(equation) for equation in jaxprs.equations(program)):
        return
    flags = jax.tree.leaves(differs)
    of_batch = [True] * (len(program.in_avals) - len(flags))
    origins = [
        Origin.STEP | Origin.WORKER if apart else Origin.STEP
        for apart in [*flags, *of_batch]
    ]
    alike: list[tuple[int, ...]] = []
    constant: list[tuple[int, ...]] = []

    def visit(equation: JaxprEqn, operands: list[Origin], in_gradient: bool) -> None:
        if not in_gradient or not _draws(equation):
            return
        key, drawn = operands[0], equation.outvars[0]
        shape = getattr(drawn.aval, "shape", ())
        if Origin.CLOSED_OVER in key and Origin.STEP not in key:
            constant.append(shape)
        elif Origin.STEP in key and Origin.WORKER not in key:
            alike.append(shape)

    visit_origins(program, origins, axis_name, visit)
    if alike:
        yield (
            "Inside its gradient this step draws the same random numbers on all "
            f"workers, such as the same dropout, of shape {alike[0]}: their key is the "
            "same on all of them. Draw with `gmc_jax.worker_key(key)`, or with "
            "`gmc_jax.worker_rngs(rngs)` for `nnx.Rngs` or any tree of keys. If "
            "workers are meant to draw alike, draw outside of the gradient, and pass "
            "the result in."
        )
    if constant:
        yield (
            "Inside its gradient this step draws the same random numbers at every "
            f"step, such as the same dropout, of shape {constant[0]}: it closes over "
            "their key. Keep the key in the state, and draw with `gmc_jax.worker_key("
            "jax.random.fold_in(key, count))`, where the state counts the steps. If "
            "the draws are meant to stay, draw outside of the step."
        )


def _draws(equation: JaxprEqn) -> bool:
    return equation.primitive.name in _DRAWS
