"""Runs the counters of a program, and counts how often each equation sends."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import DebugInfo, Jaxpr, JaxprEqn, Literal

from gmc_jax.channels._calls import BitsOfCalls
from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Program, axes_of, jaxpr_of, subprograms
from gmc_jax.utils.trees import size_in_bits

Values: TypeAlias = list[jax.Array | None]
"""Arrays, and None for values that are unknown."""

_LARGEST = 2**16  # Entries of the largest array that counts as a counter or a table.


def messages(
    program: Program, axis_name: str, calls: BitsOfCalls
) -> dict[Hashable, int]:
    """The bits that each sending equation sends, by the key of the equation."""
    found: dict[Hashable, int] = {}
    for equation in program.eqns:
        if axis_name in axes_of(equation):
            if equation.primitive.name not in jaxprs.SENDS_NOTHING:
                operands = [value.aval for value in equation.invars]
                found[key_of(equation)] = size_in_bits(operands)
            continue
        inside: dict[Hashable, int] = {}
        for inner in subprograms(equation):
            inside |= messages(inner, axis_name, calls)
        key = key_of(equation)
        # A channel around channels sends what the inner channels send.
        if inside and key in calls and calls.keys().isdisjoint(inside):
            inside = {key: calls[key]}
        found |= inside
    return found


def key_of(equation: JaxprEqn) -> Hashable:
    """The name of the function that is called, else the identity of the equation."""
    return equation.params.get("name", id(equation))


class Walk(NamedTuple):
    """An interpreter of programs that computes only their counters.

    Attributes:
      axis_name: the named axis whose indices are the workers.
      sizes: the bits that each sending equation sends, by the key of the equation.
      before: the state before the step.
    """

    axis_name: str
    sizes: dict[Hashable, int]
    before: Sequence[jax.Array | None] = ()

    def run(
        self, program: Program, arguments: Sequence[jax.Array | None]
    ) -> tuple[jax.Array, Values]:
        """Returns how often each equation of `sizes` sends, and the known results."""
        jaxpr = jaxpr_of(program)
        consts = getattr(program, "consts", [])
        known = dict(zip(jaxpr.constvars, map(_small, consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))
        total = self._nothing()

        def read(atom) -> jax.Array | None:
            return _small(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            sent, results = self._equation(equation, list(map(read, equation.invars)))
            if sent is not None:
                total += sent
            known |= dict(zip(equation.outvars, results, strict=True))
        return total, list(map(read, jaxpr.outvars))

    def _nothing(self) -> jax.Array:
        return jnp.zeros(len(self.sizes), jnp.int32)

    def _equation(
        self, equation: JaxprEqn, values: Values
    ) -> tuple[jax.Array | None, Values]:
        """Returns what an equation sends, None for nothing, and the known results."""
        name = equation.primitive.name
        unknown: Values = [None] * len(equation.outvars)
        if (key := key_of(equation)) in self.sizes:
            return self._nothing().at[list(self.sizes).index(key)].set(1), unknown
        if self.axis_name in axes_of(equation):
            return None, unknown
        programs = list(subprograms(equation))
        if name == "cond":
            return self._choose(programs, values)
        if len(programs) == 1 and name not in jaxprs.LOOPS:
            (program,) = programs
            return self.run(program, values)
        if any(messages(program, self.axis_name, {}) for program in programs):
            sent = sum(
                (
                    self.run(program, [None] * len(program.in_avals))[0]
                    for program in programs
                ),
                self._nothing(),
            )
            return equation.params.get("length", 1) * sent, unknown
        shapes: Tree = [value.aval for value in equation.outvars]
        small = all(math.prod(shape.shape) <= _LARGEST for shape in shapes)
        if not small or not all(map(is_known, values)):
            return None, unknown
        return None, _evaluate(equation, values)

    def _choose(
        self, branches: list[Program], values: Values
    ) -> tuple[jax.Array, Values]:
        """Returns what the branch of a conditional sends, and its known results.

        If the index is unknown, it takes the branch that can send most. So a guard such
        as `skip_nonfinite` lets every step pass, and the counters inside it count on.
        If no branch sends, it takes the branch that changes most of the state. So a
        guard that decides after sending lets every step pass, too.
        """
        index, *arguments = values
        sent, results = zip(
            *(self.run(branch, arguments) for branch in branches), strict=True
        )
        if index is None:
            most = [self._most(branch) for branch in branches]
            unchanged = [sum(map(self._is_unchanged, values)) for values in results]
            if max(most):
                chosen = most.index(max(most))
            else:
                chosen = unchanged.index(min(unchanged))
            is_guard = max(most) or min(unchanged) < max(unchanged)
            values = results[chosen]
            return sent[chosen], values if is_guard else [None] * len(values)
        chosen = jnp.clip(index, 0, len(branches) - 1)
        return jnp.stack(sent)[chosen], [
            jnp.stack(values)[chosen] if all(map(is_known, values)) else None
            for values in zip(*results, strict=True)
        ]

    def _is_unchanged(self, value: jax.Array | None) -> bool:
        return is_known(value) and any(value is old for old in self.before)

    def _most(self, program: Program) -> int:
        """The bits that a program can send, over all its branches."""
        total = 0
        for equation in program.eqns:
            inside = map(self._most, subprograms(equation))
            total += self.sizes.get(key_of(equation), 0) or sum(inside)
        return total


def _evaluate(equation: JaxprEqn, values: Values) -> Values:
    """The results of an equation all of whose operands are known."""
    pairs = zip(equation.invars, values, strict=True)
    inputs = {atom: value for atom, value in pairs if not isinstance(atom, Literal)}
    names = tuple(map(str, range(len(inputs))))
    about = DebugInfo("message_bits", equation.primitive.name, names, None)
    program = Jaxpr((), list(inputs), equation.outvars, [equation], debug_info=about)
    return list(eval_jaxpr(program, (), *inputs.values()))


def is_known(value: jax.Array | None) -> bool:
    return value is not None


def _small(value: jax.typing.ArrayLike) -> jax.Array | None:
    return jnp.asarray(value) if np.size(value) <= _LARGEST else None
