"""Traced programs: which equations they hold, and where values flow."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from gmc_jax.core import Tree, hooks_of

State = TypeVar("State")

Program: TypeAlias = Any
"""A traced function: a `Jaxpr`, or an object that holds one with its constants.

They are one class in jax 0.12 and two before, so no type fits both.
"""

SENDS_NOTHING = ("axis_index", "pvary", "pcast")
"""Primitives that name an axis and send nothing along it."""

LOOPS = ("scan", "while")
"""Primitives that run a program many times."""

_STATE = "gmc_jax.state"
_DIFFERENTIATED = re.compile(r"\b(jvp|transpose)\(")


def jaxpr_of(program: Program) -> Jaxpr:
    """Returns the jaxpr of a program, without its constants."""
    return getattr(program, "jaxpr", program)


def mark(tree: Tree, name: str) -> Tree:
    """Gives a tree a name that `marks` finds; the name compiles to nothing."""
    return checkpoint_name(tree, name)


def no_communication_mark(axis_name: str) -> str:
    """Returns the mark which says that workers on an axis shall stay separate."""
    return f"gmc_jax.no_communication({axis_name!r})"


QUERY_MARK = "gmc_jax.query"
"""The mark of what `query` returns."""


class StateClass(NamedTuple):
    """A class of states, as marks describe it.

    Attributes:
      name: the name of the class.
      hooks: the names of its hooks.
    """

    name: str
    hooks: tuple[str, ...]


def mark_updated(state: State) -> State:
    """Marks the new state of a transformation or channel for `classes_updated`.

    The class alone does not show the update: a training loop may keep the state in
    another container, such as the dictionaries that `nnx.split` makes.
    """
    leaves, treedef = jax.tree.flatten(state)
    cls = type(state)
    leaves[:1] = mark(leaves[:1], " ".join([_STATE, cls.__name__, *hooks_of(cls)]))
    return treedef.unflatten(leaves)


def classes_updated(marks: Iterable[str]) -> list[StateClass]:
    """Returns the classes of the states that a program with these marks updates."""
    updates = sorted(mark for mark in marks if mark.startswith(f"{_STATE} "))
    words = [mark.split(" ")[1:] for mark in updates]
    return [StateClass(name, tuple(hooks)) for name, *hooks in words]


def classes_missing_from(
    names: Container[str], classes: Iterable[StateClass]
) -> tuple[StateClass, ...]:
    """Returns the classes whose names are not in `names`."""
    return tuple(cls for cls in classes if cls.name not in names)


def marks(program: Program) -> set[str]:
    """Returns all marks in a program."""
    return marks_in(equations(program))


def marks_in(equations: Iterable[JaxprEqn]) -> set[str]:
    """Returns the marks that these equations set, without those of subprograms."""
    return {
        equation.params["name"]
        for equation in equations
        if equation.primitive.name == "name"
    }


def equations(program: Program) -> Iterator[JaxprEqn]:
    """Yields all equations of a program and of its subprograms."""
    for equation in program.eqns:
        yield equation
        for inner in subprograms(equation):
            yield from equations(inner)


def subprograms(equation: JaxprEqn) -> Iterator[Program]:
    """Yields the programs inside an equation: branches, bodies of loops, calls."""
    yield from _programs(equation.params.values())


def axes_of(equation: JaxprEqn) -> tuple:
    """Returns the named axes that an equation refers to."""
    axes = equation.params.get("axes", equation.params.get("axis_name", ()))
    return axes if isinstance(axes, tuple) else (axes,)


def sends(equation: JaxprEqn, axis_name: str) -> bool:
    """Whether an equation is a collective along an axis."""
    return (
        axis_name in axes_of(equation) and equation.primitive.name not in SENDS_NOTHING
    )


def passed_through(program: Program) -> list[int | None]:
    """Returns for each result the index of the argument that it is, or None.

    A result is an argument if the program returns that argument unchanged.
    """
    jaxpr = jaxpr_of(program)
    places = {value: place for place, value in enumerate(jaxpr.invars)}

    def place_of(value: Var | Literal) -> int | None:
        return places.get(value) if isinstance(value, Var) else None

    for equation in jaxpr.eqns:
        operands = list(map(place_of, equation.invars))
        for program in called(equation):
            passed = zip(equation.outvars, passed_through(program), strict=True)
            for result, argument in passed:
                place = None if argument is None else operands[argument]
                if place is not None:
                    places[result] = place
    return list(map(place_of, jaxpr.outvars))


def is_differentiated(equation: JaxprEqn) -> bool:
    """Whether an equation is part of the computation of a gradient."""
    return bool(_DIFFERENTIATED.search(str(equation.source_info.name_stack)))


def flow(
    program: Program,
    followed: Sequence[bool],
    *,
    starts: Callable[[JaxprEqn], bool] = lambda equation: False,
    visit: Callable[[JaxprEqn], object] = lambda equation: None,
) -> list[bool]:
    """Follows values through a program, and returns which results they reach.

    The index of a `cond` does not reach the results of its branches. In a loop, every
    carried value counts as reaching every other one.

    Args:
      program: the program.
      followed: for each argument, whether it is followed.
      starts: whether all results of an equation are followed, whatever its operands.
      visit: called with each equation that has a followed operand.
    """
    jaxpr = jaxpr_of(program)
    pairs = zip(jaxpr.invars, followed, strict=True)
    reached = {value for value, is_followed in pairs if is_followed}

    def are_reached(values: Sequence) -> list[bool]:
        return [isinstance(value, Var) and value in reached for value in values]

    for equation in jaxpr.eqns:
        operands = are_reached(equation.invars)
        if any(operands):
            visit(equation)
        if starts(equation):
            results = [True] * len(equation.outvars)
        else:
            results = _flow_through(equation, operands, starts, visit)
        pairs = zip(equation.outvars, results, strict=True)
        reached.update(value for value, is_reached in pairs if is_reached)
    return are_reached(jaxpr.outvars)


def _flow_through(
    equation: JaxprEqn,
    operands: list[bool],
    starts: Callable[[JaxprEqn], bool],
    visit: Callable[[JaxprEqn], object],
) -> list[bool]:
    """Returns which results of an equation are reached, given which operands are."""
    name, size = equation.primitive.name, len(equation.outvars)
    if name == "cond":
        operands = operands[1:]
    programs = list(subprograms(equation))
    if not programs:
        return [any(operands)] * size
    reached = [False] * size
    for program in programs:
        jaxpr = jaxpr_of(program)
        if name in LOOPS or len(jaxpr.invars) != len(operands):
            followed = [any(operands)] * len(jaxpr.invars)
        else:
            followed = operands
        results = flow(jaxpr, followed, starts=starts, visit=visit)
        if name in LOOPS or len(results) != size:
            results = [any(results)] * size
        reached = [a or b for a, b in zip(reached, results, strict=True)]
    return reached


def called(equation: JaxprEqn) -> list[Program]:
    """Returns the program that an equation calls once with its operands, if any."""
    programs = list(subprograms(equation))
    if len(programs) != 1 or equation.primitive.name in LOOPS:
        return []
    jaxpr = jaxpr_of(programs[0])
    inside, outside = (jaxpr.invars, jaxpr.outvars), (equation.invars, equation.outvars)
    return programs if list(map(len, inside)) == list(map(len, outside)) else []


def _programs(values: Iterable) -> Iterator[Program]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _programs(value)
        elif isinstance(jaxpr_of(value), Jaxpr):
            yield value
