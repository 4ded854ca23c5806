"""What a transformation sends at each step, read off its traced program.

Counters decide at which steps a worker sends: the steps since the last synchronisation,
or the round of a schedule. Counters do not depend on the data. So the program is run
for any number of steps, but only its counters are computed. Values that depend on
gradients or parameters stay unknown, so nothing is allocated in the size of the model.
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
from gmc_jax.costs.traffic import Loads, loads_of_equation
from gmc_jax.utils import jaxprs
from gmc_jax.utils.jaxprs import Program, axes_of, jaxpr_of, subprograms
from gmc_jax.utils.trees import size_in_bits

Values: TypeAlias = list[jax.Array | None]
"""Arrays, and None for values that are unknown."""

_LARGEST = 2**16  # Entries of the largest array that counts as a counter or a table.
_fresh = itertools.count()


class _Traced(NamedTuple):
    """The programs of a transformation.

    Attributes:
      init: maps parameters to the state.
      update: maps updates, the state, parameters and extra arguments to the next state.
      calls: the bits of each call of a channel in `update`.
    """

    init: Program
    update: Program
    calls: BitsOfCalls


def bits_of_steps(
    tx: optax.GradientTransformation,
    params: Tree,
    steps: int,
    axis_name: str,
    extra_args: dict[str, Tree],
) -> NDArray[np.int64]:
    """Counts the bits that one worker sends in each of the first steps, [steps].

    A call of a channel that sends something counts the bits that the channel's `bits`
    gives. A collective outside channels counts the bits of its operands. A conditional
    on an unknown value counts as the branch that sends most. A loop counts as all its
    rounds, or as one if the program does not tell their number.
    """
    with jax.disable_jit(False), jax.debug_nans(False):
        try:
            traced = _trace(tx, params, 2, axis_name, extra_args)
        except OtherWorkersError as error:  # Its topology has another number of them.
            traced = _trace(tx, params, error.workers, axis_name, extra_args)
        sizes = _messages(traced.update, axis_name, traced.calls)
    sent = _run(traced, sizes, len(jax.tree.leaves(params)), steps, axis_name)
    return sent @ np.array(list(sizes.values()), np.int64)


def traffic_of_steps(
    tx: optax.GradientTransformation,
    params: Tree,
    steps: int,
    workers: int,
    axis_name: str = "workers",
) -> NDArray[np.float64]:
    """Counts the bytes and hops of a worker's link in each of the first steps.

    They are those of `link_traffic`, for all channels of a step together, and for
    collectives outside channels.

    Args:
      tx: any transformation.
      params: the parameters, or a tree of their shapes and dtypes.
      steps: the number of steps.
      workers: the number of workers.
      axis_name: the named axis that the transformation averages over.

    Returns:
      [steps, 2]; the columns are bytes and hops of the busiest worker.

    Raises:
      ValueError: if a channel is made for another number of workers, or uses a
        collective whose cost is not known.
    """
    with jax.disable_jit(False), jax.debug_nans(False):
        traced = _trace(tx, params, workers, axis_name, {})
        sizes = _messages(traced.update, axis_name, traced.calls)
        sent = _run(traced, sizes, len(jax.tree.leaves(params)), steps, axis_name)
    loads = _loads(traced.update, sizes, axis_name, workers)
    each = np.array([loads[key] for key in sizes]).reshape(-1, workers, 2)
    return np.einsum("sk,kwt->swt", sent, each).max(axis=1)


def _loads(
    program: Program, sizes: dict[Hashable, int], axis_name: str, workers: int
) -> dict[Hashable, Loads]:
    """The loads of each sending equation, by its key."""
    found: dict[Hashable, Loads] = {}
    for equation in program.eqns:
        if (key := _key(equation)) in sizes:
            found[key] = loads_of_equation(equation, axis_name, workers)
            continue
        for inner in subprograms(equation):
            found |= _loads(inner, sizes, axis_name, workers)
    return found


def _run(
    traced: _Traced,
    sizes: dict[Hashable, int],
    count: int,
    steps: int,
    axis_name: str,
) -> NDArray[np.int64]:
    """Runs the counters of a transformation of `count` leaves.

    Returns how often each equation of `sizes` sends in each step, [steps, equations].
    """
    if not sizes:
        return np.zeros((steps, 0), np.int64)
    walk = _Walk(axis_name, sizes)
    rest: Values = [None] * (len(traced.update.in_avals) - len(traced.update.out_avals))

    def step(values: Values) -> tuple[jax.Array, Values]:
        arguments = [*rest[:count], *values, *rest[count:]]
        sent, after = walk._replace(before=values).run(traced.update, arguments)
        return sent, [
            None if old is None or new is None else jnp.asarray(new, old.dtype)
            for old, new in zip(values, after, strict=True)
        ]

    def run() -> jax.Array:
        _, values = walk.run(traced.init, [None] * count)
        while True:  # A value that is unknown after a step is unknown before the next.
            _, after = jax.eval_shape(step, values)
            still_known = [
                None if new is None else old
                for old, new in zip(values, after, strict=True)
            ]
            if list(map(_is_known, still_known)) == list(map(_is_known, values)):
                break
            values = still_known

        def one(values: Values, _: None) -> tuple[Values, jax.Array]:
            sent, values = step(values)
            return values, sent

        return jax.lax.scan(one, values, length=steps)[1]

    with jax.ensure_compile_time_eval():  # The caller may be traced itself.
        return np.asarray(jax.jit(run)(), np.int64)


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

    # With a new second axis JAX cannot reuse an older trace; see `named_calls`.
    axes = [(axis_name, workers), (f"gmc_jax_trace_{next(_fresh)}", 1)]
    init, state = jax.make_jaxpr(tx.init, return_shape=True)(params)
    with named_calls() as calls:
        program = jax.make_jaxpr(state_after, axis_env=axes)(
            params, state, params, extra_args
        )
    return _Traced(init, program, calls)


def _messages(
    program: Program, axis_name: str, calls: BitsOfCalls
) -> dict[Hashable, int]:
    """The bits that each sending equation sends, by the key of the equation."""
    found: dict[Hashable, int] = {}
    for equation in program.eqns:
        if axis_name in axes_of(equation):
            if equation.primitive.name not in jaxprs.SENDS_NOTHING:
                operands = [value.aval for value in equation.invars]
                found[_key(equation)] = size_in_bits(operands)
            continue
        inside: dict[Hashable, int] = {}
        for inner in subprograms(equation):
            inside |= _messages(inner, axis_name, calls)
        key = _key(equation)
        # A channel around channels sends what the inner channels send.
        if inside and key in calls and calls.keys().isdisjoint(inside):
            inside = {key: calls[key]}
        found |= inside
    return found


def _key(equation: JaxprEqn) -> Hashable:
    """The name of the function that is called, else the identity of the equation."""
    return equation.params.get("name", id(equation))


class _Walk(NamedTuple):
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
        if (key := _key(equation)) in self.sizes:
            return self._nothing().at[list(self.sizes).index(key)].set(1), unknown
        if self.axis_name in axes_of(equation):
            return None, unknown
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
                self._nothing(),
            )
            return equation.params.get("length", 1) * sent, unknown
        shapes: Tree = [value.aval for value in equation.outvars]
        small = all(math.prod(shape.shape) <= _LARGEST for shape in shapes)
        if not small or not all(map(_is_known, values)):
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
            jnp.stack(values)[chosen] if all(map(_is_known, values)) else None
            for values in zip(*results, strict=True)
        ]

    def _is_unchanged(self, value: jax.Array | None) -> bool:
        return _is_known(value) and any(value is old for old in self.before)

    def _most(self, program: Program) -> int:
        """The bits that a program can send, over all its branches."""
        total = 0
        for equation in program.eqns:
            inside = map(self._most, subprograms(equation))
            total += self.sizes.get(_key(equation), 0) or sum(inside)
        return total


def _evaluate(equation: JaxprEqn, values: Values) -> Values:
    """The results of an equation all of whose operands are known."""
    pairs = zip(equation.invars, values, strict=True)
    inputs = {atom: value for atom, value in pairs if not isinstance(atom, Literal)}
    names = tuple(map(str, range(len(inputs))))
    about = DebugInfo("message_bits", equation.primitive.name, names, None)
    program = Jaxpr((), list(inputs), equation.outvars, [equation], debug_info=about)
    return list(eval_jaxpr(program, (), *inputs.values()))


def _is_known(value: jax.Array | None) -> bool:
    return value is not None


def _small(value: jax.typing.ArrayLike) -> jax.Array | None:
    return jnp.asarray(value) if np.size(value) <= _LARGEST else None
