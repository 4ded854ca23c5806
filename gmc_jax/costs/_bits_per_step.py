"""What a transformation sends at each step, read off its traced program.

When a worker sends depends on counters, which the data plays no part in: steps since
workers last met, the round of a schedule. So the program is run for its counters alone,
as many steps as wanted. All that depends on gradients or parameters is unknown and is
not computed, so nothing is allocated in the size of the model.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import eval_jaxpr
from jax.extend.core import DebugInfo, Jaxpr, JaxprEqn, Literal
from numpy.typing import NDArray

from gmc_jax.channels._calls import BitsOfCalls, named_calls
from gmc_jax.channels._neighbours import OtherWorkersError
from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Program, axes_of, jaxpr_of, subprograms
from gmc_jax.utils.trees import size_in_bits

Values: TypeAlias = list[jax.Array | None]
"""Arrays, and None for those that depend on what is not known."""

_LARGEST = 2**16  # Entries of what is taken for a counter, or for a table of steps.
_fresh = itertools.count()


class _Traced(NamedTuple):
    """The programs of a transformation.

    Attributes:
      init: from parameters to the state.
      update: from updates, the state, parameters and what else it takes to the state.
      notes: the bits of the calls of channels in it.
    """

    init: Program
    update: Program
    notes: BitsOfCalls


def bits_of_steps(
    tx: optax.GradientTransformation,
    params: Tree,
    steps: int,
    axis_name: str,
    extra_args: dict[str, Tree],
) -> NDArray[np.int64]:
    """The bits that one worker sends in each of the first steps, [steps].

    A call of a channel counts as the channel says, if something is sent in it, and a
    collective outside of any channel as its operands. Of a conditional on what is not
    known the branch that sends most counts, and of a loop every round.
    """
    with jax.disable_jit(False), jax.debug_nans(False):
        try:
            traced = _trace(tx, params, 2, axis_name, extra_args)
        except OtherWorkersError as error:  # It stands on a topology of so many.
            traced = _trace(tx, params, error.workers, axis_name, extra_args)
        return _run(traced, len(jax.tree.leaves(params)), steps, axis_name)


def _run(traced: _Traced, count: int, steps: int, axis_name: str) -> NDArray[np.int64]:
    """Runs the programs of a transformation of so many leaves for its counters."""
    sizes = _messages(traced.update, axis_name, traced.notes)
    if not sizes:
        return np.zeros(steps, np.int64)
    walk = _Walk(axis_name, sizes)
    rest: Values = [None] * (len(traced.update.in_avals) - len(traced.update.out_avals))

    def step(values: Values) -> tuple[jax.Array, Values]:
        given = [*rest[:count], *values, *rest[count:]]
        sent, after = walk._replace(before=values).run(traced.update, given)
        return sent, [
            None if old is None or new is None else jnp.asarray(new, old.dtype)
            for old, new in zip(values, after, strict=True)
        ]

    def run() -> jax.Array:
        _, values = walk.run(traced.init, [None] * count)
        while True:  # What is not known after a step is not known before the next.
            _, after = jax.eval_shape(step, values)
            lasting = [
                None if new is None else old
                for old, new in zip(values, after, strict=True)
            ]
            if list(map(_is_known, lasting)) == list(map(_is_known, values)):
                break
            values = lasting

        def one(values: Values, _: None) -> tuple[Values, jax.Array]:
            sent, values = step(values)
            return values, sent

        return jax.lax.scan(one, values, length=steps)[1]

    with jax.ensure_compile_time_eval():  # A caller may be traced itself.
        sent = np.asarray(jax.jit(run)(), np.int64)
    return sent @ np.array(list(sizes.values()), np.int64)


def _trace(
    tx: optax.GradientTransformation,
    params: Tree,
    workers: int,
    axis_name: str,
    extra_args: dict[str, Tree],
) -> _Traced:
    update = optax.with_extra_args_support(tx).update

    def state_after(updates, state, params, extra_args):
        return update(updates, state, params, **extra_args)[1]

    # The second axis is of this trace alone; see `named_calls`.
    axes = [(axis_name, workers), (f"gmc_jax_trace_{next(_fresh)}", 1)]
    init, state = jax.make_jaxpr(tx.init, return_shape=True)(params)
    with named_calls() as notes:
        program = jax.make_jaxpr(state_after, axis_env=axes)(
            params, state, params, extra_args
        )
    return _Traced(init, program, notes)


def _messages(
    program: Program, axis_name: str, notes: BitsOfCalls
) -> dict[Hashable, int]:
    """The bits of all that is sent, by the key of its equation."""
    found: dict[Hashable, int] = {}
    for equation in program.eqns:
        if axis_name in axes_of(equation):
            if equation.primitive.name not in jaxprs.SENDS_NOTHING:
                operands = [value.aval for value in equation.invars]
                found[_key(equation)] = size_in_bits(operands)
            continue
        inside: dict[Hashable, int] = {}
        for inner in subprograms(equation):
            inside |= _messages(inner, axis_name, notes)
        key = _key(equation)
        # A channel around channels sends what these do.
        if inside and key in notes and notes.keys().isdisjoint(inside):
            inside = {key: notes[key]}
        found |= inside
    return found


def _key(equation: JaxprEqn) -> Hashable:
    """The name of what is called, or else the equation itself."""
    return equation.params.get("name", id(equation))


class _Walk(NamedTuple):
    """Running programs for their counters.

    Attributes:
      axis_name: the named axis whose indices are the workers.
      sizes: the bits of what is sent, by the key of its equation.
      before: the state before the step.
    """

    axis_name: str
    sizes: dict[Hashable, int]
    before: Sequence[jax.Array | None] = ()

    def run(
        self, program: Program, arguments: Sequence[jax.Array | None]
    ) -> tuple[jax.Array, Values]:
        """How often each of `sizes` is sent, and what is known of the results."""
        jaxpr = jaxpr_of(program)
        consts = getattr(program, "consts", [])
        known = dict(zip(jaxpr.constvars, map(_small, consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))
        total = jnp.zeros(len(self.sizes), jnp.int32)

        def read(atom) -> jax.Array | None:
            return _small(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            sent, results = self._equation(equation, list(map(read, equation.invars)))
            total += sent
            known |= dict(zip(equation.outvars, results, strict=True))
        return total, list(map(read, jaxpr.outvars))

    def _equation(self, equation: JaxprEqn, values: Values) -> tuple[jax.Array, Values]:
        name, nothing = equation.primitive.name, jnp.zeros(len(self.sizes), jnp.int32)
        unknown: Values = [None] * len(equation.outvars)
        if (key := _key(equation)) in self.sizes:
            return nothing.at[list(self.sizes).index(key)].set(1), unknown
        if self.axis_name in axes_of(equation):
            return nothing, unknown
        programs = list(subprograms(equation))
        if name == "cond":
            return self._choose(programs, values)
        if len(programs) == 1 and name not in jaxprs.LOOPS:
            (program,) = programs
            return self.run(program, values)
        if any(_messages(program, self.axis_name, {}) for program in programs):
            sent = sum(
                (
                    self.run(program, [None] * len(program.in_avals))[0]
                    for program in programs
                ),
                nothing,
            )
            return equation.params.get("length", 1) * sent, unknown
        shapes: Tree = [value.aval for value in equation.outvars]
        small = all(math.prod(shape.shape) <= _LARGEST for shape in shapes)
        if not small or not all(map(_is_known, values)):
            return nothing, unknown
        return nothing, _evaluate(equation, values)

    def _choose(
        self, branches: list[Program], values: Values
    ) -> tuple[jax.Array, Values]:
        """What one of several branches sends.

        Where it is not known which, it is the one that would send most: a guard that
        lets steps pass or not is taken to let them pass, and counters inside count on.
        So is one that decides when all is sent, and gives the state as it was or not.
        """
        index, *arguments = values
        sent, results = zip(
            *(self.run(branch, arguments) for branch in branches), strict=True
        )
        if index is None:
            most = [self._most(branch) for branch in branches]
            stays = [sum(map(self._is_as_before, ends)) for ends in results]
            chosen = (most if max(most) else stays).index(max(most) or min(stays))
            decides = max(most) or min(stays) < max(stays)
            ends = results[chosen]
            return sent[chosen], ends if decides else [None] * len(ends)
        place = jnp.clip(index, 0, len(branches) - 1)
        return jnp.stack(sent)[place], [
            jnp.stack(ends)[place] if all(map(_is_known, ends)) else None
            for ends in zip(*results, strict=True)
        ]

    def _is_as_before(self, value: jax.Array | None) -> bool:
        return _is_known(value) and any(value is old for old in self.before)

    def _most(self, program: Program) -> int:
        """The bits of all that a program can send."""
        total = 0
        for equation in program.eqns:
            inside = map(self._most, subprograms(equation))
            total += self.sizes.get(_key(equation), 0) or sum(inside)
        return total


def _evaluate(equation: JaxprEqn, values: Values) -> Values:
    """The results of an equation all of whose operands are known."""
    pairs = zip(equation.invars, values, strict=True)
    given = {atom: value for atom, value in pairs if not isinstance(atom, Literal)}
    names = tuple(map(str, range(len(given))))
    about = DebugInfo("message_bits", equation.primitive.name, names, None)
    alone = Jaxpr((), list(given), equation.outvars, [equation], debug_info=about)
    return list(eval_jaxpr(alone, (), *given.values()))


def _is_known(value: jax.Array | None) -> bool:
    return value is not None


def _small(value: jax.typing.ArrayLike) -> jax.Array | None:
    return jnp.asarray(value) if np.size(value) <= _LARGEST else None
