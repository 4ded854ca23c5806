"""What a transformation sends at each step, read off its traced program.

Counters decide at which steps a worker sends: the steps since the last synchronisation,
or the round of a schedule. Counters do not depend on the data. So the program is run
for any number of steps, but only its counters are computed. Values that depend on
gradients or parameters stay unknown, so nothing is allocated in the size of the model.
"""

import itertools
from collections.abc import Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from gmc_jax.channels._calls import BitsOfCalls, named_calls
from gmc_jax.channels._neighbours import OtherWorkersError
from gmc_jax.core import Tree
from gmc_jax.costs._walk import Values, Walk, is_known, key_of, messages
from gmc_jax.costs.traffic import Loads, loads_of_equations
from gmc_jax.utils.jaxprs import Program, subprograms

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
        sizes = messages(traced.update, axis_name, traced.calls)
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
        sizes = messages(traced.update, axis_name, traced.calls)
        sent = _run(traced, sizes, len(jax.tree.leaves(params)), steps, axis_name)
    loads = _loads(traced.update, sizes, axis_name, workers)
    each = np.array([loads[key] for key in sizes]).reshape(-1, workers, 2)
    return np.einsum("sk,kwt->swt", sent, each).max(axis=1)


def _loads(
    program: Program, sizes: dict[Hashable, int], axis_name: str, workers: int
) -> dict[Hashable, Loads]:
    """The loads of each sending equation, by its key."""
    found: dict[Hashable, Loads] = {}
    for equation, load in loads_of_equations(program, axis_name, workers):
        if (key := key_of(equation)) in sizes:
            found[key] = load
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
    walk = Walk(axis_name, sizes)
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
            if list(map(is_known, still_known)) == list(map(is_known, values)):
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
