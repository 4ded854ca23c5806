"""Programs as JAX traces them: what is in them, and where values flow."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import custom_vmap
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from gmc_jax.core import Tree, hooks_of

State = TypeVar("State")

Program: TypeAlias = Any
"""What JAX traces a function to: a `Jaxpr`, or with constants one that holds it.

In jax 0.12 the two are one class, and before they were two: no type is good for both.
"""

FREE = ("axis_index", "pvary", "pcast")
"""What names an axis and sends nothing along it."""

LOOPS = ("scan", "while")
"""What runs a program many times."""

_STATE = "gmc_jax.state"
_DIFFERENTIATED = re.compile(r"\b(jvp|transpose)\(")


def bare(program: Program) -> Jaxpr:
    """A program without its constants."""
    return getattr(program, "jaxpr", program)


def mark(tree: Tree, name: str) -> Tree:
    """The tree as it is, with a name that `marks` finds; it compiles to nothing."""
    return checkpoint_name(tree, name)


def alone_on(axis_name: str) -> str:
    """The mark of what workers on an axis mean to keep to themselves."""
    return f"gmc_jax.no_communication({axis_name!r})"


QUERIED = "gmc_jax.query"
"""The mark of the point that `query` has moved."""


class Kind(NamedTuple):
    """A class of states.

    Attributes:
      name: of the class.
      hooks: the names of its hooks.
    """

    name: str
    hooks: tuple[str, ...]


def updated(state: State) -> State:
    """The new state of a transformation or channel, which `kinds_updated` tells of.

    What a loop keeps of it may be of another class: `nnx.split` makes dictionaries.
    """
    leaves, treedef = jax.tree.flatten(state)
    kind = type(state)
    leaves[:1] = mark(leaves[:1], " ".join([_STATE, kind.__name__, *hooks_of(kind)]))
    return treedef.unflatten(leaves)


def kinds_updated(names: Iterable[str]) -> list[Kind]:
    """The classes of the states that are updated in a program, given its marks."""
    ours = sorted(name for name in names if name.startswith(f"{_STATE} "))
    parts = [name.split(" ")[1:] for name in ours]
    return [Kind(name, tuple(hooks)) for name, *hooks in parts]


def not_held(kinds: Iterable[Kind], names: Container[str]) -> tuple[Kind, ...]:
    """The classes of states that are not among the names of those in a tree."""
    return tuple(kind for kind in kinds if kind.name not in names)


def marks(program: Program) -> set[str]:
    """The names that were given in a program."""
    return marks_in(equations(program))


def marks_in(equations: Iterable[JaxprEqn]) -> set[str]:
    """The names that these equations themselves give."""
    return {
        equation.params["name"]
        for equation in equations
        if equation.primitive.name == "name"
    }


def equations(program: Program) -> Iterator[JaxprEqn]:
    """All of a program, those within branches, loops and calls included."""
    for equation in program.eqns:
        yield equation
        for inner in within(equation):
            yield from equations(inner)


def within(equation: JaxprEqn) -> Iterator[Program]:
    """The programs in an equation: branches, bodies of loops, calls."""
    yield from _programs(equation.params.values())


def axes_of(equation: JaxprEqn) -> tuple:
    """The named axes that an equation is about."""
    axes = equation.params.get("axes", equation.params.get("axis_name", ()))
    return axes if isinstance(axes, tuple) else (axes,)


def sends(equation: JaxprEqn, axis_name: str) -> bool:
    """Whether it is a collective along an axis."""
    return axis_name in axes_of(equation) and equation.primitive.name not in FREE


def passed_on(program: Program) -> list[int | None]:
    """Of every result which argument it is, where it comes back as it was given."""
    jaxpr = bare(program)
    places = {value: place for place, value in enumerate(jaxpr.invars)}

    def place_of(value: Var | Literal) -> int | None:
        return places.get(value) if isinstance(value, Var) else None

    for equation in jaxpr.eqns:
        operands = list(map(place_of, equation.invars))
        for program in _called(equation):
            passed = zip(equation.outvars, passed_on(program), strict=True)
            for result, argument in passed:
                place = None if argument is None else operands[argument]
                if place is not None:
                    places[result] = place
    return list(map(place_of, jaxpr.outvars))


def differentiated(equation: JaxprEqn) -> bool:
    """Whether it is part of a gradient."""
    return bool(_DIFFERENTIATED.search(str(equation.source_info.name_stack)))


def flow(
    program: Program,
    given: Sequence[bool],
    *,
    begins: Callable[[JaxprEqn], bool] = lambda equation: False,
    visit: Callable[[JaxprEqn], object] = lambda equation: None,
) -> list[bool]:
    """Which results of a program some of its values flow into.

    What a condition decides does not carry the condition. In a loop all that is carried
    is taken to reach all else.

    Args:
      program: the program.
      given: of every argument whether it is followed.
      begins: whether what an equation gives is followed.
      visit: called with the equations that use what is followed.
    """
    jaxpr = bare(program)
    pairs = zip(jaxpr.invars, given, strict=True)
    followed = {value for value, is_followed in pairs if is_followed}

    def carries(values: Sequence) -> list[bool]:
        return [isinstance(value, Var) and value in followed for value in values]

    for equation in jaxpr.eqns:
        operands = carries(equation.invars)
        if any(operands):
            visit(equation)
        if begins(equation):
            results = [True] * len(equation.outvars)
        else:
            results = _through(equation, operands, begins, visit)
        reached = zip(equation.outvars, results, strict=True)
        followed.update(value for value, is_reached in reached if is_reached)
    return carries(jaxpr.outvars)


def batched_results(
    program: Program, batched: Sequence[bool], workers: int, axis_name: str
) -> list[bool]:
    """Which results of a program differ between workers, where some arguments do.

    Args:
      program: of one worker.
      batched: of every argument whether it differs.
      workers: their number.
      axis_name: the named axis that they are on.
    """
    found = [False] * len(program.out_avals)

    def probe(place: int, leaf: jax.Array) -> jax.Array:
        @custom_vmap
        def identity(leaf: jax.Array) -> jax.Array:
            return leaf

        @identity.def_vmap
        def _(size: int, is_batched: list[bool], leaf: jax.Array) -> tuple:
            del size
            found[place] = is_batched[0]
            return leaf, is_batched[0]

        return identity(leaf)

    def one_worker(*leaves: jax.Array) -> list[jax.Array]:
        new = jaxpr_as_fun(program)(*leaves)
        return [probe(place, leaf) for place, leaf in enumerate(new)]

    def kept(one: jax.ShapeDtypeStruct, differs: bool) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((workers,) * differs + one.shape, one.dtype)

    over_workers = jax.vmap(
        one_worker,
        in_axes=tuple(0 if differs else None for differs in batched),
        axis_size=workers,
        axis_name=axis_name,
    )
    jax.eval_shape(over_workers, *map(kept, program.in_avals, batched))
    return found


def _through(
    equation: JaxprEqn,
    operands: list[bool],
    begins: Callable[[JaxprEqn], bool],
    visit: Callable[[JaxprEqn], object],
) -> list[bool]:
    """Which results of an equation are reached."""
    name, outs = equation.primitive.name, len(equation.outvars)
    if name == "cond":
        operands = operands[1:]
    inside = list(within(equation))
    if not inside:
        return [any(operands)] * outs
    reached = [False] * outs
    for program in inside:
        jaxpr = bare(program)
        whole = name in LOOPS or len(jaxpr.invars) != len(operands)
        given = [any(operands)] * len(jaxpr.invars) if whole else operands
        found = flow(jaxpr, given, begins=begins, visit=visit)
        if name in LOOPS or len(found) != outs:
            found = [any(found)] * outs
        reached = [a or b for a, b in zip(reached, found, strict=True)]
    return reached


def _called(equation: JaxprEqn) -> list[Program]:
    """The one program that an equation calls, once and with its operands, if any."""
    programs = list(within(equation))
    if len(programs) != 1 or equation.primitive.name in LOOPS:
        return []
    jaxpr = bare(programs[0])
    inside, outside = (jaxpr.invars, jaxpr.outvars), (equation.invars, equation.outvars)
    return programs if list(map(len, inside)) == list(map(len, outside)) else []


def _programs(values: Iterable) -> Iterator[Program]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _programs(value)
        elif isinstance(bare(value), Jaxpr):
            yield value
