"""What each value of a traced step is made from."""

from collections.abc import Callable, Sequence
from enum import Flag, auto
from typing import Any, TypeAlias

import jax
from jax.extend.core import JaxprEqn, Literal

from gmc_jax.utils.jaxprs import Program, axes_of, is_differentiated, jaxpr_of
from gmc_jax.utils.jaxprs import subprograms as subprograms_of
from gmc_jax.utils.prng_keys import is_key


class Origin(Flag):
    """What a value is made from; a value may have several origins, or none."""

    STEP = auto()
    """The state or the batch, so that it changes from step to step."""

    WORKER = auto()
    """What differs between workers: the batch, a part of the state, the index."""

    CLOSED_OVER = auto()
    """An array that the step closes over."""


NOWHERE = Origin(0)

Visit: TypeAlias = Callable[[JaxprEqn, list[Origin], bool], object]
"""`(equation, origins of its operands, whether it is part of a gradient)`."""


def visit_origins(
    program: Program, origins: Sequence[Origin], axis_name: str, visit: Visit
) -> list[Origin]:
    """Follows the origins of values through a program.

    An origin is never left out, but may be one too many: results of an equation have
    those of all its operands.

    Args:
      program: the program.
      origins: of its arguments.
      axis_name: the named axis whose indices are the workers.
      visit: called with each equation, in each of its calls.

    Returns:
      The origins of the results.
    """
    return _Walk(axis_name, visit).through(program, origins, False)


class _Walk:
    def __init__(self, axis_name: str, visit: Visit) -> None:
        self.axis_name = axis_name
        self.visit = visit

    def through(
        self, program: Program, origins: Sequence[Origin], in_gradient: bool
    ) -> list[Origin]:
        jaxpr = jaxpr_of(program)
        known = dict.fromkeys(jaxpr.constvars, Origin.CLOSED_OVER)
        known.update(zip(jaxpr.invars, origins, strict=True))

        def of(value) -> Origin:
            return _of_literal(value) if isinstance(value, Literal) else known[value]

        for equation in jaxpr.eqns:
            operands = list(map(of, equation.invars))
            inside = in_gradient or is_differentiated(equation)
            self.visit(equation, operands, inside)
            results = self._results(equation, operands, inside)
            known.update(zip(equation.outvars, results, strict=True))
        return list(map(of, jaxpr.outvars))

    def _results(
        self, equation: JaxprEqn, operands: list[Origin], inside: bool
    ) -> list[Origin]:
        name, size = equation.primitive.name, len(equation.outvars)
        everything = _union(operands)
        programs = list(subprograms_of(equation))
        if name == "axis_index" and self.axis_name in axes_of(equation):
            return [Origin.WORKER] * size
        if name == "scan":
            return self._scan(equation, programs[0], operands, inside)
        if name == "cond":
            index, *operands = operands
        else:
            index = NOWHERE
        results = [NOWHERE if programs else everything] * size
        for program in programs:
            arguments = jaxpr_of(program).invars
            fits = len(arguments) == len(operands) and name != "while"
            given = operands if fits else [everything] * len(arguments)
            new = self.through(program, given, inside)
            if not fits or len(new) != size:
                new = [everything | _union(new)] * size
            results = [a | b | index for a, b in zip(results, new, strict=True)]
        return results

    def _scan(
        self,
        equation: JaxprEqn,
        body: Program,
        operands: list[Origin],
        inside: bool,
    ) -> list[Origin]:
        carried = _as_long(equation.outvars, jaxpr_of(body).outvars)
        consts = _as_long(equation.invars, jaxpr_of(body).invars) - carried
        quietly = _Walk(self.axis_name, lambda *_: None)
        while True:
            results = quietly.through(body, operands, inside)
            after = list(operands)
            for place in range(carried):
                after[consts + place] |= results[place]
            if after == operands:
                return self.through(body, operands, inside)
            operands = after


def _union(origins: Sequence[Origin]) -> Origin:
    total = NOWHERE
    for origin in origins:
        total |= origin
    return total


def _of_literal(literal: Literal) -> Origin:
    """Numbers are written in the step; arrays and keys, it closes over."""
    value = literal.val
    closed_over = isinstance(value, jax.Array) and (is_key(value) or value.ndim > 0)
    return Origin.CLOSED_OVER if closed_over else NOWHERE


def _as_long(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many values of a scan its body gets, or makes, whole.

    They come first. Of the others each round has a slice. JAX names their numbers
    otherwise from version to version.
    """
    return sum(
        value.aval.ndim == part.aval.ndim
        for value, part in zip(outside, inside, strict=True)
    )
