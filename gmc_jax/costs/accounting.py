"""What is sent: by a message's size, by the paper's count, by the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from numpy.typing import NDArray

from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.core import Channel, Tree
from gmc_jax.costs._bits_per_step import bits_of_steps
from gmc_jax.costs.hlo import Collective, Cost, collectives
from gmc_jax.utils import checks
from gmc_jax.utils.multihost import fetch
from gmc_jax.utils.trees import find

# Steps in which a transformation is to come to its long run: of those that send
# nothing for so long, many more.
_HORIZONS = (2**14, 2**20)


@runtime_checkable
class Lowerable(Protocol):
    """What `jax.jit` and `jax.pmap` return, and `simulate` and `distribute`."""

    @property
    def lower(self) -> Callable[..., jax.stages.Lowered]:
        """Traces and lowers for the arguments of a call."""
        ...


class WireBytes(int):
    """The most bytes that one worker puts into the collectives of one call.

    As a number it takes of every conditional the branch that sends most, and of every
    loop all its rounds (one, where the program does not tell how many there are).

    Attributes:
      always: the bytes of the collectives that every call runs, outside conditionals.
      operations: every `Collective` in the program: its operation, its bytes, whether
        it is conditional, and how many times a call runs it.
    """

    always: int
    operations: tuple[Collective, ...]

    def __new__(cls, cost: Cost) -> WireBytes:
        """Makes the number; `wire_bytes` is what measures it."""
        number = super().__new__(cls, cost.most)
        number.always = cost.always
        number.operations = cost.collectives
        return number


def message_bits(
    what: Channel | optax.GradientTransformation,
    params: Tree,
    *,
    steps: int | None = None,
    axis_name: str = "workers",
    **extra_args: Tree,
) -> float:
    """What one worker sends: in a call of a channel, or in a step of a transformation.

    Of a channel it is the size of the message; of a schedule (`join_channels`), the
    largest. It is read off the shapes of the message, not computed by a formula.

    Of a transformation, `gmc(...)` as well as `optax.partition({...})`, it is the mean
    over steps of all channels together. What is sent every 12 steps counts a twelfth,
    and leaves that do not travel do not count. The transformation is traced and run for
    its counters alone, so it may be made of anything: wrappers, conditionals, channels
    of your own. Of a schedule the mean is that of the long run, unless `steps` says how
    many there are; where it depends on the data whether something is sent, as in
    `skip_nonfinite`, it is taken to be.

    Args:
      what: any channel, or any transformation.
      params: the parameters, or any tree of the shapes and dtypes that are averaged;
        `jax.ShapeDtypeStruct` will do.
      steps: of a transformation, the mean is over so many first steps. By default over
        the shortest cycle that the first 16,384 steps end in, or over all of these
        where they end in none; where none of them sends anything, of the first 2^20.
      axis_name: the named axis that the transformation averages over.
      **extra_args: what else the update of the transformation takes, in the shapes of
        `params` or as it wants it, such as `snapshot_grads`.

    Returns:
      Bits, an integer where they are whole. Dense float32 is `message_bits(exact(),
      params)`. What a server would answer (`simulated_server`) is sent by no worker:
      it counts as a channel and not in a transformation.

    Raises:
      TypeError: if `what` is neither a channel nor a transformation.
      ValueError: if `steps` is not a whole number of at least 1.
      NameError: if the transformation averages over another axis.

    Example:
      >>> import gmc_jax, jax, optax
      >>> params = jax.ShapeDtypeStruct((1000,), "float32")
      >>> gmc_jax.message_bits(gmc_jax.exact(), params)
      32000
      >>> slowmo = gmc_jax.slowmo(optax.sgd(0.1), gmc_jax.exact(), period=10)
      >>> gmc_jax.message_bits(slowmo, params)
      3200

    Guarantees:
      Of a transformation that averages through one channel at every step it is that of
      the channel.
      Nothing is allocated in the size of the parameters.
    """
    if isinstance(what, Channel):
        return what.bits(params)
    if not isinstance(what, optax.GradientTransformation):
        raise TypeError(
            "`what` must be a channel, such as `all_gather(top_k(0.01))`, or a "
            f"transformation, such as `gmc(0.1, channel)`, but is {what!r}."
        )
    if steps is not None:
        checks.positive_int(steps=steps)
        return _mean_of(bits_of_steps(what, params, steps, axis_name, extra_args))
    sent = np.zeros(1, np.int64)
    for horizon in _HORIZONS:
        if not sent.any():
            sent = bits_of_steps(what, params, horizon, axis_name, extra_args)
    return _mean_of(_cycle(sent))


def _mean_of(sent: NDArray[np.int64]) -> float:
    total, count = sum(sent.tolist()), len(sent)
    return total / count if total % count else total // count


def _cycle(sent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The shortest cycle of the second half, or all where there is none.

    Each step is compared with the one a period before, as in the search for a word of
    Knuth, Morris and Pratt: where they differ, the next longer period that is possible.
    """
    late = sent[len(sent) // 2 :].tolist()
    alike = [0] * len(late)  # Of the steps up to here, how many end as all began.
    for end in range(1, len(late)):
        length = alike[end - 1]
        while length and late[end] != late[length]:
            length = alike[length - 1]
        alike[end] = length + (late[end] == late[length])
    period = len(late) - alike[-1]
    return sent[-period:] if 2 * period <= len(late) else sent


def relative_cost(opt_state: Tree) -> float:
    """The relative communication cost (RCC) so far; dense momentum SGD is 1.

    As the GMC paper counts it, on the server and in floats: with U the entries that all
    workers sent and D those of the means that came back, in T steps of K workers with d
    parameters,

        RCC = (2 U + 2 K D) / (2 d K T),

    and half of that where no indices travel. A step counts once, however many channels
    it averages through: of a method with two, count the one that does not average at
    every step as `count_entries(channel, extra=True)`. Reconstructed: the published
    formula was not at hand, and this one is consistent with the published numbers.

    Args:
      opt_state: the state as it is kept between steps, of a transformation through
        `count_entries(channel)`; of several counted channels the costs add up, and so
        do the sizes of those that are not extra.

    Returns:
      The cost, 0.01 for one percent.

    Raises:
      ValueError: if the state holds no counted channel, or no step was counted.
    """
    states = [fetch(state) for state in find(opt_state, CountEntriesState)]
    if not states:
        raise ValueError(
            "`opt_state` holds no counts. Wrap the channel: `count_entries(channel)`."
        )
    cost = dense = 0.0
    for state in states:
        weight = 1.0 if state.indexed.all() else 0.5
        cost += weight * (_mean(state.up) + _mean(state.down))
        dense += _mean(state.dense)
    if not dense:
        raise ValueError(
            "`opt_state` has counted no step yet. Train first, and of several channels "
            "count one without `extra`."
        )
    return cost / dense


def wire_bytes(
    fn: Callable[..., Tree] | Lowerable, *args: Tree, axis_name: str = "workers"
) -> WireBytes:
    """Bytes that one worker puts into the collectives of a compiled program.

    It compiles the function for these arguments, runs nothing, and reads the operands
    of all collectives in the program, asynchronous and tuple forms included: what is
    handed to the network, not what a formula says. On the links of a ring an all-reduce
    of n bytes moves about 2 n, and an all-gather to K workers (K - 1) n.

    On a mesh with other axes beside the workers', what a worker's devices send to those
    of others is added up, and what they send to each other is left out.

    Args:
      fn: the `train` that `distribute` returns, or any function of arrays. Under
        `simulate` there is no collective to be found.
      *args: its arguments, or `jax.ShapeDtypeStruct` of them.
      axis_name: the axis of the mesh that has the workers. Without it, and on other
        meshes, each device is a worker.

    Returns:
      An integer with `.always` and `.operations`, which tell conditionals and loops
      apart.
    """
    program = fn if isinstance(fn, Lowerable) else jax.jit(fn)
    compiled = program.lower(*args).compile()
    worker_of = _workers(compiled.output_shardings, axis_name)
    return WireBytes(collectives(compiled.as_text() or "", worker_of))


def _workers(shardings: Tree, axis_name: str) -> list[int] | None:
    """The worker of every device of the mesh that results are laid out over."""
    for sharding in jax.tree.leaves(shardings):
        if isinstance(sharding, NamedSharding) and axis_name in sharding.mesh.shape:
            mesh = sharding.mesh.shape
            index = np.indices(tuple(mesh.values()))[list(mesh).index(axis_name)]
            return index.ravel().tolist()
    return None


def _mean(count: np.ndarray) -> float:
    halves = count.reshape(-1, 2).astype(float).mean(axis=0)
    return float(halves[0] * 2**32 + halves[1])
