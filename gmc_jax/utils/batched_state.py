"""Which leaves of a state differ between workers, found by batching a program."""

from collections.abc import Sequence

import jax
from jax.custom_batching import custom_vmap
from jax.extend.core import Var, jaxpr_as_fun

from gmc_jax.utils.jaxprs import Program, axes_of, called, jaxpr_of, subprograms


def batched_state(
    program: Program, size: int, workers: int, axis_name: str
) -> list[bool]:
    """Returns which leaves of a state differ between workers after some steps.

    What a round returns is what the next begins with, until nothing changes. The first
    round begins with the leaves that depend on the batch or on the worker's index by
    plain operations alone, which batch their results for sure.

    Args:
      program: the program of one worker, from the leaves of the state and of the batch
        to those of the new state.
      size: the number of leaves of the state.
      workers: the number of workers.
      axis_name: the named axis whose indices are the workers.
    """
    of_batches = [True] * (len(program.in_avals) - size)
    before, after = [], [False] * size
    while before != after:
        before = after
        after = _plainly_batched(program, [*before, *of_batches], axis_name)
    before = []
    while before != after:
        before = after
        after = batched_results(program, [*before, *of_batches], workers, axis_name)
        if any(old and not now for old, now in zip(before, after, strict=True)):
            after = [False] * size  # An operation has a batching rule of its own.
    return after


def batched_results(
    program: Program, batched: Sequence[bool], workers: int, axis_name: str
) -> list[bool]:
    """Returns for each result of a program whether it differs between workers.

    Args:
      program: the program of one worker.
      batched: for each argument, whether it differs between workers.
      workers: the number of workers.
      axis_name: the named axis whose indices are the workers.
    """
    differs = [False] * len(program.out_avals)

    def probe(place: int, leaf: jax.Array) -> jax.Array:
        @custom_vmap
        def identity(leaf: jax.Array) -> jax.Array:
            return leaf

        @identity.def_vmap
        def _(size: int, is_batched: list[bool], leaf: jax.Array) -> tuple:
            del size
            differs[place] = is_batched[0]
            return leaf, is_batched[0]

        return identity(leaf)

    def one_worker(*leaves: jax.Array) -> list[jax.Array]:
        new = jaxpr_as_fun(program)(*leaves)
        return [probe(place, leaf) for place, leaf in enumerate(new)]

    def over_all(one: jax.ShapeDtypeStruct, is_batched: bool) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((workers,) * is_batched + one.shape, one.dtype)

    over_workers = jax.vmap(
        one_worker,
        in_axes=tuple(0 if is_batched else None for is_batched in batched),
        axis_size=workers,
        axis_name=axis_name,
    )
    jax.eval_shape(over_workers, *map(over_all, program.in_avals, batched))
    return differs


def _plainly_batched(
    program: Program, batched: Sequence[bool], axis_name: str
) -> list[bool]:
    """Returns which results depend on batched arguments by plain operations."""
    jaxpr = jaxpr_of(program)
    found = {value for value, on in zip(jaxpr.invars, batched, strict=True) if on}
    for equation in jaxpr.eqns:
        operands = [
            isinstance(value, Var) and value in found for value in equation.invars
        ]
        name, results = equation.primitive.name, equation.outvars
        if axis_name in axes_of(equation):
            differs = [name == "axis_index"] * len(results)
        elif name == "cond":
            branches = [
                _plainly_batched(branch, operands[1:], axis_name)
                for branch in subprograms(equation)
            ]
            differs = list(map(any, zip(*branches, strict=True)))
        elif inner := called(equation) if name != "custom_vmap_call" else []:
            differs = _plainly_batched(inner[0], operands, axis_name)
        else:
            plain = len(results) == 1 and not list(subprograms(equation))
            differs = [plain and any(operands)] * len(results)
        found.update(value for value, on in zip(results, differs, strict=True) if on)
    return [isinstance(value, Var) and value in found for value in jaxpr.outvars]
