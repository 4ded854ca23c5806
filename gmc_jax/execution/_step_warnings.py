"""Warnings about steps that train something other than their author intended."""

from collections.abc import Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from gmc_jax.core import Tree
from gmc_jax.execution._draw_warnings import draw_warnings
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Program, StateClass
from gmc_jax.utils.trees import find_hooks


def step_warnings(
    program: Program,
    shapes: Tree,
    differs: Tree,
    missing_states: Sequence[StateClass],
    workers: int,
    axis_name: str,
) -> Iterator[str]:
    """Yields the warnings about a traced step.

    Args:
      program: one worker's step, from the leaves of state and batch to those of the
        new state.
      shapes: the state of one worker.
      differs: for each of its leaves, whether it differs between workers.
      missing_states: the classes of states that the step updates and `shapes` does not
        hold.
      workers: the number of workers.
      axis_name: the named axis that the step averages over.
    """
    marks = jaxprs.marks(program)
    separate = _separately_trained(program, shapes, differs, axis_name)
    is_intended = jaxprs.no_communication_mark(axis_name) in marks
    if workers > 1 and separate and not is_intended:
        yield (
            f"This step trains {workers} separate models: nothing that workers send "
            f"along the axis {axis_name!r} reaches the state, and `state{separate}` "
            "differs between workers. Put a channel into the method, such as "
            "`optax.chain(gmc_jax.averaged(gmc_jax.exact()), optax.adam(0.001))`. If "
            "workers are meant to stay separate, use the channel "
            "`gmc_jax.no_communication()` in the place of `exact()`."
        )
    without_query = _updated_without_query(program, shapes)
    if jaxprs.QUERY_MARK not in marks:
        without_query += [cls.name for cls in missing_states if "query" in cls.hooks]
    if without_query and _takes_gradients(program):
        yield (
            f"The step updates a `{without_query[0]}`, whose method takes gradients at "
            "another point than the parameters, but never calls `gmc_jax.query`. So it "
            "trains by another method. Take the gradient at `gmc_jax.query(opt_state, "
            "params)` in the place of `params`. If it is meant to be taken elsewhere, "
            "call `gmc_jax.query` and ignore its result."
        )
    if workers > 1:
        yield from draw_warnings(program, differs, axis_name)


def _updated_without_query(program: Program, shapes: Tree) -> list[str]:
    """Names the classes of states with a hook `query` that are updated without it."""
    treedef, arguments = jax.tree.structure(shapes), jaxprs.passed_through(program)
    states = find_hooks(treedef.unflatten(range(treedef.num_leaves)), "query")

    def is_unqueried(places: list[int]) -> bool:
        if all(arguments[place] == place for place in places):
            return False
        return jaxprs.QUERY_MARK not in _marks_reached(program, places)

    return [
        type(state).__name__ for state in states if is_unqueried(jax.tree.leaves(state))
    ]


def _marks_reached(program: Program, places: Collection[int]) -> set[str]:
    """Returns the marks of values that depend on the arguments at these places."""
    names = set()

    def visit(equation: JaxprEqn) -> None:
        names.update(jaxprs.marks_in([equation]))

    followed = [place in places for place in range(len(program.jaxpr.invars))]
    jaxprs.flow(program, followed, visit=visit)
    return names


def _takes_gradients(program: Program) -> bool:
    return any(map(jaxprs.is_differentiated, jaxprs.equations(program)))


def _separately_trained(
    program: Program, shapes: Tree, differs: Tree, axis_name: str
) -> str | None:
    """Returns the path of a trained leaf that differs, if no worker receives anything.

    A leaf is trained if a gradient depends on it. Counters, keys, running sums of an
    evaluation and the statistics of a frozen model are not trained.
    """

    def sends(equation: JaxprEqn) -> bool:
        return jaxprs.sends(equation, axis_name)

    def are_trained(places: list[int]) -> bool:
        users = []
        followed = [place in places for place in range(arguments)]
        jaxprs.flow(program, followed, visit=users.append)
        return any(map(jaxprs.is_differentiated, users))

    arguments = len(program.jaxpr.invars)
    received = jaxprs.flow(program, [False] * arguments, starts=sends)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    floats = [
        place
        for place, (_, leaf) in enumerate(leaves)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    differing = [place for place in floats if jax.tree.leaves(differs)[place]]
    if any(received[place] for place in floats) or not are_trained(differing):
        return None
    first = next(place for place in differing if are_trained([place]))
    return jax.tree_util.keystr(leaves[first][0])
