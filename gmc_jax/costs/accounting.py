"""How much workers send: bits of messages, relative cost, and compiled bytes."""

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
from gmc_jax.costs.hlo import Collective, Cost, collectives
from gmc_jax.costs.sent_per_step import bits_of_steps
from gmc_jax.utils import checks
from gmc_jax.utils.multihost import fetch
from gmc_jax.utils.trees import find

# Numbers of first steps in which a cycle is sought. The second is for transformations
# that send nothing in the first 2^14 steps.
_HORIZONS = (2**14, 2**20)


@runtime_checkable
class Lowerable(Protocol):
    """A function that can be lowered: of `jit`, `pmap`, `simulate` or `distribute`."""

    @property
    def lower(self) -> Callable[..., jax.stages.Lowered]:
        """Traces and lowers the function for the arguments of a call."""
        ...


class WireBytes(int):
    """The most bytes that one worker puts into the collectives of one call.

    A conditional counts as the branch that sends most. A loop counts as all its rounds,
    or as one if the program does not tell their number.

    Attributes:
      always: the bytes of the collectives outside conditionals, which every call runs.
      operations: every `Collective` in the program, with its operation, its bytes,
        whether it is conditional, and how many times a call runs it.
    """

    always: int
    operations: tuple[Collective, ...]

    def __new__(cls, cost: Cost) -> WireBytes:
        """Makes the number from a cost that `wire_bytes` has read."""
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
    """Counts the bits that one worker sends in a call of a channel, or in a step.

    For a channel they are the size of its message, read off the message's shapes. For a
    schedule of channels (`join_channels`) they are the size of the largest message.

    For a transformation, such as `gmc(...)` or `optax.partition({...})`, they are the
    mean over steps of what all its channels send together. A message that is sent every
    12 steps counts as a twelfth. Leaves that are not sent do not count. For a schedule
    the mean is that of the long run, unless `steps` gives the number of steps. Where
    the data decides whether a message is sent, as in `skip_nonfinite`, the message
    counts.

    The transformation is traced, and only its counters are computed. So it may be made
    of any wrappers, conditionals and channels, your own included.

    Args:
      what: any channel, or any transformation.
      params: the parameters, or any tree of the shapes and dtypes that are averaged;
        `jax.ShapeDtypeStruct` will do.
      steps: for a transformation, the mean is over this number of first steps. By
        default it is over the shortest cycle that the first 16,384 steps end in, or
        over all of them if they end in no cycle. If none of them sends anything, the
        first 2^20 steps take their place.
      axis_name: the named axis that the transformation averages over.
      **extra_args: further arguments of the transformation's update, such as
        `snapshot_grads`, in their shapes and dtypes.

    Returns:
      Bits; an integer if the mean is whole. Without compression a message has
      `message_bits(exact(), params)` bits. The channel `simulated_server` counts the
      answer of a server. A transformation through that channel does not, since no
      worker sends the answer.

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
      For a transformation that averages through one channel at every step, the bits
      are those of the channel.
      Nothing is allocated in the size of the parameters.
    """
    sent = _bits_of(what, params, steps, axis_name, extra_args)
    if steps is None:
        sent = _cycle(sent)
    total, count = sum(sent.tolist()), len(sent)
    return total / count if total % count else total // count


def peak_message_bits(
    what: Channel | optax.GradientTransformation,
    params: Tree,
    *,
    steps: int | None = None,
    axis_name: str = "workers",
    **extra_args: Tree,
) -> int:
    """Counts the most bits that one worker sends in a call of a channel, or in a step.

    A link must carry the peak between two steps, unless the method has a delay. For a
    channel the peak is `message_bits`, which describes what is counted. `streaming`
    lowers the peak of `periodic` and keeps its mean.

    Args:
      what: any channel, or any transformation.
      params: the parameters, or any tree of their shapes and dtypes.
      steps: for a transformation, the number of first steps among which the most is
        sought. By default they are the first 16,384. If none of them sends anything,
        the first 2^20 steps take their place.
      axis_name: the named axis that the transformation averages over.
      **extra_args: further arguments of the transformation's update, in their shapes
        and dtypes.

    Returns:
      Bits, of all channels together.

    Raises:
      TypeError: if `what` is neither a channel nor a transformation.
      ValueError: if `steps` is not a whole number of at least 1.
      NameError: if the transformation averages over another axis.

    Example:
      >>> import gmc_jax, jax, optax
      >>> params = [jax.ShapeDtypeStruct((500,), "float32")] * 2
      >>> averages = gmc_jax.averaged(gmc_jax.exact()), optax.scale(-1.0)
      >>> tx = gmc_jax.streaming(optax.sgd(0.1), *averages, period=10, fragments=int)
      >>> gmc_jax.message_bits(tx, params), gmc_jax.peak_message_bits(tx, params)
      (3200, 16000)

    Guarantees:
      It is at least `message_bits`.
      Nothing is allocated in the size of the parameters.
    """
    return int(_bits_of(what, params, steps, axis_name, extra_args).max())


def _bits_of(
    what: Channel | optax.GradientTransformation,
    params: Tree,
    steps: int | None,
    axis_name: str,
    extra_args: dict[str, Tree],
) -> NDArray[np.int64]:
    """Counts the bits of one call of a channel, or of each of the first steps."""
    if isinstance(what, Channel):
        return np.array([what.bits(params)])
    if not isinstance(what, optax.GradientTransformation):
        raise TypeError(
            "`what` must be a channel, such as `all_gather(top_k(0.01))`, or a "
            f"transformation, such as `gmc(0.1, channel)`, got {what!r}."
        )
    if steps is not None:
        steps = checks.whole(steps=steps)
        return bits_of_steps(what, params, steps, axis_name, extra_args)
    sent = np.zeros(1, np.int64)
    for horizon in _HORIZONS:
        if not sent.any():
            sent = bits_of_steps(what, params, horizon, axis_name, extra_args)
    return sent


def _cycle(sent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the shortest cycle of the second half, or all steps if there is none.

    A border of a sequence is both its beginning and its end. The cycle's length is the
    length of the half less that of its longest border, which the prefix function of
    Knuth, Morris and Pratt gives.
    """
    late = sent[len(sent) // 2 :].tolist()
    borders = [0] * len(late)  # Of each prefix, the length of its longest border.
    for end in range(1, len(late)):
        length = borders[end - 1]
        while length and late[end] != late[length]:
            length = borders[length - 1]
        borders[end] = length + (late[end] == late[length])
    period = len(late) - borders[-1]
    return sent[-period:] if 2 * period <= len(late) else sent


def relative_cost(opt_state: Tree) -> float:
    """Computes the relative communication cost (RCC) so far; dense momentum SGD is 1.

    It is counted as in the GMC paper: at a server, and in floats. In T steps of K
    workers with d parameters, U is the number of entries that all workers sent, and D
    that of the means which they received:

        RCC = (2 U + 2 K D) / (2 d K T).

    It is half of that if no indices are sent. The formula is a reconstruction: the
    published one was not at hand. It is consistent with the published numbers.

    A step counts once, however many channels it averages through. So in a method with
    two channels, count the one that does not average at every step as
    `count_entries(channel, extra=True)`.

    Args:
      opt_state: the state of a transformation through `count_entries(channel)`, as it
        is kept between steps. The costs of several counted channels add up, and so do
        the sizes of those that are not extra.

    Returns:
      The cost; 0.01 is one percent.

    Raises:
      ValueError: if the state holds no counted channel, or no step was counted.
    """
    states = [fetch(state) for state in find(opt_state, CountEntriesState)]
    if not states:
        raise ValueError(
            "`opt_state` must hold the counts of a channel, got none. Wrap the "
            "channel: `count_entries(channel)`."
        )
    cost = dense = 0.0
    for state in states:
        weight = 1.0 if state.indexed.all() else 0.5
        cost += weight * (_mean(state.up) + _mean(state.down))
        dense += _mean(state.dense)
    if not dense:
        raise ValueError(
            "`opt_state` must have counted at least one step, got none. Train first, "
            "and count at least one channel without `extra`."
        )
    return cost / dense


def wire_bytes(
    fn: Callable[..., Tree] | Lowerable, *args: Tree, axis_name: str = "workers"
) -> WireBytes:
    """Counts the bytes that one worker puts into collectives of a compiled program.

    The function is compiled for these arguments, but not run. The bytes are those of
    the operands of all collectives in the program, asynchronous and tuple forms
    included. They are what is handed to the network. With operands of n bytes, the link
    of a worker in a ring carries about 2 n for an all-reduce, and (K - 1) n for an
    all-gather among K workers.

    On a mesh with further axes a worker has several devices. What they send to devices
    of other workers is added up. What they send to each other does not count.

    Args:
      fn: the `train` that `distribute` returns, or any function of arrays. Under
        `simulate` a program has no collectives.
      *args: the arguments of `fn`, or `jax.ShapeDtypeStruct` of them.
      axis_name: the axis of the mesh whose indices are the workers. On a mesh without
        this axis each device is a worker.

    Returns:
      An integer with the attributes `always` and `operations`, which tell apart what is
      in conditionals and in loops.
    """
    program = fn if isinstance(fn, Lowerable) else jax.jit(fn)
    compiled = program.lower(*args).compile()
    worker_of = _workers(compiled.output_shardings, axis_name)
    return WireBytes(collectives(compiled.as_text() or "", worker_of))


def _workers(shardings: Tree, axis_name: str) -> list[int] | None:
    """For every device of the mesh of the results, the worker it belongs to."""
    for sharding in jax.tree.leaves(shardings):
        if isinstance(sharding, NamedSharding) and axis_name in sharding.mesh.shape:
            mesh = sharding.mesh.shape
            index = np.indices(tuple(mesh.values()))[list(mesh).index(axis_name)]
            return index.ravel().tolist()
    return None


def _mean(count: np.ndarray) -> float:
    halves = count.reshape(-1, 2).astype(float).mean(axis=0)
    return float(halves[0] * 2**32 + halves[1])
