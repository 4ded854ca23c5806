"""What a traced step shows that its author hardly means."""

from collections.abc import Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Kind, Program
from gmc_jax.utils.trees import find_hooks


def doubts(
    program: Program,
    shapes: Tree,
    differs: Tree,
    apart: Sequence[Kind],
    workers: int,
    axis_name: str,
) -> Iterator[str]:
    """What to warn of, each in a few sentences.

    Args:
      program: one worker's step, from the leaves of state and batch to those of the
        new state.
      shapes: the state of one worker.
      differs: which of its leaves differ between workers.
      apart: the classes of states that the step updates and the state does not hold.
      workers: their number.
      axis_name: the axis that the step averages over.
    """
    marks = jaxprs.marks(program)
    stray = _stray(program, shapes, differs, axis_name)
    if workers > 1 and stray and jaxprs.alone_on(axis_name) not in marks:
        yield (
            f"This step trains {workers} separate models: nothing of what workers send "
            f"along the axis {axis_name!r} comes into the state, and `state{stray}` "
            "differs between them. Put a channel into the method, such as "
            "`optax.chain(gmc_jax.averaged(gmc_jax.exact()), optax.adam(0.001))`. "
            "Where workers are meant to stay apart, say so with the channel "
            "`gmc_jax.no_communication()` in the place of `exact()`."
        )
    unasked = _unasked(program, shapes)
    if jaxprs.QUERIED not in marks:
        unasked += [kind.name for kind in apart if "query" in kind.hooks]
    if unasked and _takes_gradients(program):
        yield (
            f"The step updates a `{unasked[0]}`, whose method takes gradients away "
            "from the parameters, but it never asks where, and so trains by another "
            "method. Take the gradient at `gmc_jax.query(opt_state, params)` in the "
            "place of `params`. Where it is meant to be taken elsewhere, call "
            "`gmc_jax.query` all the same, and leave its result."
        )


def _unasked(program: Program, shapes: Tree) -> list[str]:
    """The classes of states that move the point, are updated, and reach no `query`."""
    treedef, passed_on = jax.tree.structure(shapes), jaxprs.passed_on(program)
    states = find_hooks(treedef.unflatten(range(treedef.num_leaves)), "query")

    def is_unasked(places: list[int]) -> bool:
        if all(passed_on[place] == place for place in places):
            return False
        return jaxprs.QUERIED not in _marks_of(program, places)

    return [
        type(state).__name__ for state in states if is_unasked(jax.tree.leaves(state))
    ]


def _marks_of(program: Program, places: Collection[int]) -> set[str]:
    """The names that are given to what some arguments flow into."""
    names = set()

    def visit(equation: JaxprEqn) -> None:
        names.update(jaxprs.marks_in([equation]))

    given = [place in places for place in range(len(program.jaxpr.invars))]
    jaxprs.flow(program, given, visit=visit)
    return names


def _takes_gradients(program: Program) -> bool:
    return any(map(jaxprs.differentiated, jaxprs.equations(program)))


def _stray(program: Program, shapes: Tree, differs: Tree, axis_name: str) -> str | None:
    """A float that differs and is trained, where workers tell each other nothing.

    What is trained goes into a gradient. So counters, keys, the sums of an evaluation
    and the statistics of a model that stays as it is are none.
    """

    def sends(equation: JaxprEqn) -> bool:
        return jaxprs.sends(equation, axis_name)

    def trains(places: list[int]) -> bool:
        parts = []
        given = [place in places for place in range(arguments)]
        jaxprs.flow(program, given, visit=parts.append)
        return any(map(jaxprs.differentiated, parts))

    arguments = len(program.jaxpr.invars)
    told = jaxprs.flow(program, [False] * arguments, begins=sends)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    floats = [
        place
        for place, (_, leaf) in enumerate(leaves)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    own = [place for place in floats if jax.tree.leaves(differs)[place]]
    if any(told[place] for place in floats) or not trains(own):
        return None
    first = next(place for place in own if trains([place]))
    return jax.tree_util.keystr(leaves[first][0])
