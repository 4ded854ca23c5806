"""Compressors, channels and the hooks of states, and what they exchange."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax

Tree: TypeAlias = Any
"""A pytree of arrays: gradients, steps, parameters, a message, a state."""

Kind = TypeVar("Kind")

_HOOKS = ("query", "evaluate", "sync_weighted", "on_sync", "conserved")
_MARK = "_gmc_jax_has_hooks"


class Sparse(NamedTuple):
    """A message of values that travel with their places in the vector.

    Attributes:
      values: [capacity], in the dtype of the vector.
      indices: [capacity] int32, each at most once; an unused slot holds the size of
        the vector, which decoding drops, and the value 0.
    """

    values: jax.Array
    indices: jax.Array


class Largest(NamedTuple):
    """Says of a compressor that its message holds the largest entries of a vector.

    Ties go to the lowest index, and the message is `Sparse`.

    Attributes:
      kept: `d -> s`, how many slots there are for d coordinates.
      level: the magnitude below which nothing is sent.
    """

    kept: Callable[[int], int]
    level: float = 0.0


class Drawn(NamedTuple):
    """Says of a shared compressor that its message holds entries drawn at random.

    The message is their values, in the order of the places.

    Attributes:
      places: `(key, d) -> places[s]`, distinct, at a cost that does not grow with d.
    """

    places: Callable[[jax.Array, int], jax.Array]


class Compressor(NamedTuple):
    """A lossy code for one vector; it holds no state and knows no named axis.

    Attributes:
      encode: `(key, x[d]) -> (message, lost[d])`. The message is a tree of arrays of
        static shapes, exactly what is sent, and `x = decoded + lost`. `lost` may be
        wider than x: what is lost by rounding needs more bits than 16.
      decode: `(key, messages, d) -> x[d]`: the *sum* of the messages that are stacked
        on a leading axis, at a cost of O(d + their size). A compressor that is not
        shared decodes without the key.
      shared: whether all workers get the same key and so send the same coordinates.
        Messages of a shared compressor may be added as they are.
      selects: which entries `encode` sends, where that can be said without having all
        of x in one place. Channels need it for what lies in parts on several devices.
      linear: whether scaling the floats of a message scales what is decoded. Then the
        mean of finite messages is finite; else it is their sum over their number.
    """

    encode: Callable[[jax.Array, jax.Array], tuple[Tree, jax.Array]]
    decode: Callable[[jax.Array, Tree, int], jax.Array]
    shared: bool = False
    selects: Largest | Drawn | None = None
    linear: bool = False


def _count_support(tree: Tree) -> int | None:
    del tree
    return None


class Channel(NamedTuple):
    """Averages a tree over workers and says what of your own contribution was lost.

    Law: the average over workers of `tree - lost` equals the average over workers of
    `mean`. Error feedback needs nothing else.

    Attributes:
      init: `params -> state`; local, runs outside the named axis.
      average: `(tree, state) -> (mean, lost, state)`; runs inside the axis. `mean`
        and `lost` have the dtypes of the tree, float32 where it has 16 bits.
      bits: `tree -> int`, what one worker sends in a call; of a schedule, the largest.
      axis_name: the named axis whose indices are the workers.
      entries: `tree -> int`, the values that one worker sends in a call without saying
        where they belong, or None where each travels with its index: then the support
        of what was sent is what counts (see `count_entries`).
    """

    init: Callable[[Tree], Tree]
    average: Callable[[Tree, Tree], tuple[Tree, Tree, Tree]]
    bits: Callable[[Tree], int]
    axis_name: str
    entries: Callable[[Tree], int | None] = _count_support


def with_hooks(state: type[Kind]) -> type[Kind]:
    """Marks the class of a state whose hooks the library is to call.

        query(params)      where the next gradient is taken
        evaluate(params)   where the model is judged, of the mean state of all workers
        sync_weighted(way)   a worker's way, as the mean over workers is to have it
        on_sync(start, end)  this state, after a meeting has moved the parameters
        conserved()        the parts of this state that are no buffers of an optimizer:
                           what is in flight or owed, anchors, the states of channels

    States are found in any chain by this mark, never by the name of a method. Momenta
    mirror the parameters in the parameters' own class, and that may be a model with a
    method `query` of its own.

    Args:
      state: a class of pytrees, such as a NamedTuple, with at least one of the hooks.

    Returns:
      The class.

    Raises:
      TypeError: if it is no class, or has none of the hooks.

    Example:
      >>> from typing import NamedTuple
      >>> import gmc_jax, jax
      >>> @gmc_jax.with_hooks
      ... class LookaheadState(NamedTuple):
      ...     momentum: jax.Array
      ...
      ...     def query(self, params):
      ...         return jax.tree.map(lambda w, m: w - m, params, self.momentum)
    """
    if not (inspect.isclass(state) and hooks_of(state)):
        raise TypeError(
            f"`state` must be a class with one of the methods {list(_HOOKS)}, but is "
            f"{state!r}. Write one of them, or leave the mark out."
        )
    setattr(state, _MARK, True)
    return state


def has_hook(node: Tree, name: str) -> bool:
    """Whether a node is a state of a marked class that has this hook."""
    marked = inspect.getattr_static(type(node), _MARK, False) is True
    return marked and _defines(type(node), name)


def hooks_of(state: type) -> tuple[str, ...]:
    """The names of the hooks of a class."""
    return tuple(name for name in _HOOKS if _defines(state, name))


def _defines(state: type, name: str) -> bool:
    """Whether a class has a method of this name; a field of that name is none."""
    return inspect.isfunction(inspect.getattr_static(state, name, None))
