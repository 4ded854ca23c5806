"""Compressors, channels, and the hooks of states."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import jax

Tree: TypeAlias = Any
"""A pytree of arrays: gradients, steps, parameters, a message, a state."""

Kind = TypeVar("Kind")


class Sparse(NamedTuple):
    """A message of values and their indices in the vector.

    The number of slots is fixed. An unused slot holds the value 0, and in place of an
    index the size of the vector. Decoding drops it. The fields of a message in few bits
    hold the same encoded: values as the message of another compressor (`quantised`),
    indices as packed words.

    Attributes:
      values: [slots], in the dtype of the vector; or a tree of arrays.
      indices: [slots] int32, or words, [n] uint32; no entry of the vector is sent
        twice.
    """

    values: Tree
    indices: jax.Array


class Largest(NamedTuple):
    """Says that a compressor sends the largest entries of a vector.

    Ties go to the lowest index. The message is `Sparse`, and its indices ascend.

    Attributes:
      num_kept: `d -> s`, the number of slots for a vector of d entries.
      level: the magnitude below which nothing is sent.
      values: what encodes the values, as `quantised` does; None if they are sent as
        they are.
    """

    num_kept: Callable[[int], int]
    level: float = 0.0
    values: "Compressor | None" = None


class Drawn(NamedTuple):
    """Says that a shared compressor sends entries drawn at random.

    The message holds their values alone, in the order of their indices.

    Attributes:
      indices: `(key, d) -> indices[s]`, those of the entries in a vector of d. They
        are distinct, and drawing them takes a time that does not grow with d.
      values: what encodes the values, as `quantised` does; None if they are sent as
        they are.
    """

    indices: Callable[[jax.Array, int], jax.Array]
    values: "Compressor | None" = None


class Blockwise(NamedTuple):
    """Says that a compressor encodes each block of entries by itself.

    Attributes:
      size: how many entries, one after another, are a block. The last block of an array
        may be shorter.
      values: what encodes the values of a selection, as `quantised` does; None if they
        are sent as they are, or the compressor selects none.
    """

    size: int
    values: "Compressor | None" = None


class Compressor(NamedTuple):
    """Encodes one array as a message, perhaps with a loss.

    It has no state, and does not know of workers. Channels give it a leaf in its own
    shape, or the whole tree as one vector.

    Attributes:
      encode: `(key, x) -> (message, lost)`. The message is a tree of arrays of static
        shapes, exactly what is sent, and `x = decoded + lost`, in the shape of x.
        `lost` may have a wider dtype than x: a rounding error of 16-bit numbers needs
        more than 16 bits.
      decode: `(key, messages, like) -> x`, the *sum* of several messages, which are
        stacked on a leading axis. `like` is a `jax.ShapeDtypeStruct` of x. Those of
        this library also take the size of a vector. It takes O(d + size of the
        messages) for d entries. A compressor that is not shared decodes without the
        key.
      shared: whether all workers use the same key and so send the same entries.
      selects: which entries `encode` sends, or that it works block by block, if that
        can be said without the whole x. Channels need it for arrays that are split over
        devices.
      linear: whether scaling the floats of a message scales the decoded vector. Then a
        channel scales messages before it adds them, so the mean of finite messages is
        finite. Otherwise it adds them first, and divides the sum.
      additive: whether messages of a shared compressor may be added without decoding.
        Those with encoded values may not.
    """

    encode: Callable[[jax.Array, jax.Array], tuple[Tree, jax.Array]]
    decode: Callable[[jax.Array, Tree, jax.ShapeDtypeStruct], jax.Array]
    shared: bool = False
    selects: Largest | Drawn | Blockwise | None = None
    linear: bool = False
    additive: bool = True


def _travel_with_indices(tree: Tree) -> int | None:
    del tree
    return None


class Channel(NamedTuple):
    """Averages a tree over workers, and says what of this worker's tree was lost.

    Law: the average over workers of `tree - lost` equals the average over workers of
    `mean`. Error feedback needs nothing else. Where messages arrive a call later, the
    law is of the sums over all calls, and what is in flight counts as arrived.

    A state that keeps parts of trees, such as messages in flight, has the hook
    `conserved` (see `with_hooks`). Then `periodic` creates these parts in the dtypes of
    the trees, and `reset_buffers` leaves them alone.

    Attributes:
      init: `tree -> state`, from a tree with the shapes *and dtypes* that `average`
        will get; its values play no part. It runs outside the named axis.
      average: `(tree, state) -> (mean, lost, state)`. It runs inside the axis. `mean`
        and `lost` have the dtypes of the tree, float32 where it has 16 bits.
      bits: `tree -> int`, the bits that one worker sends in a call. Where calls differ,
        it is the most that one of them sends.
      axis_name: the named axis whose indices are the workers.
      entries: `tree -> int`, the number of values that one worker sends in a call,
        where values travel without indices. None where they travel with indices: then
        `count_entries` counts the nonzero entries of what was sent.
    """

    init: Callable[[Tree], Tree]
    average: Callable[[Tree, Tree], tuple[Tree, Tree, Tree]]
    bits: Callable[[Tree], int]
    axis_name: str
    entries: Callable[[Tree], int | None] = _travel_with_indices


# The hooks of states. `with_hooks` marks a class that has some of them.


class HasQuery(Protocol):
    """A state that moves the point at which the next gradient is taken."""

    def query(self, params: Tree) -> Tree:
        """The point, given this worker's parameters, in their shapes and dtypes.

        `gmc_jax.query` calls it, inside the axis.
        """
        ...


class HasEvaluate(Protocol):
    """A state that moves the point at which the model is evaluated."""

    def evaluate(self, params: Tree) -> Tree:
        """The point, given the mean parameters of all workers.

        `gmc_jax.evaluate` calls it, outside the axis, on the mean state of all workers.
        """
        ...


class HasSyncWeighted(Protocol):
    """A state that weighs its worker in a synchronisation."""

    def sync_weighted(self, pseudo_gradient: Tree) -> Tree:
        """A pseudo-gradient times the weight of this worker.

        `periodic` and `resize` call it. The weights of K workers sum to K, so that the
        mean over workers is a weighted mean.
        """
        ...


class HasOnSync(Protocol):
    """A state that follows parameters which a synchronisation moves."""

    def on_sync(self, start: Tree, end: Tree) -> Tree:
        """The state after a synchronisation moved this worker from start to end.

        `periodic` and `resize` call it.
        """
        ...


class HasConserved(Protocol):
    """A state with parts that are not buffers of an optimizer."""

    def conserved(self) -> Tree:
        """Those parts: messages in flight, residuals, anchors, states of channels.

        `maintain_buffers`, `average_buffers` and `reset_buffers` leave them alone.
        """
        ...


_HOOKS = tuple(
    name
    for protocol in (HasQuery, HasEvaluate, HasSyncWeighted, HasOnSync, HasConserved)
    for name in vars(protocol)
    if not name.startswith("_")
)
_MARK = "_gmc_jax_has_hooks"


def with_hooks(state: type[Kind]) -> type[Kind]:
    """Marks the class of a state whose hooks the library calls.

        query(params)                    where the next gradient is taken
        evaluate(params)                 where the model is evaluated, given the means
                                         over workers of the state and the parameters
        sync_weighted(pseudo_gradient)   a pseudo-gradient times the worker's weight
        on_sync(start, end)              the state after a synchronisation has moved the
                                         parameters
        conserved()                      the parts that are not buffers of an optimizer:
                                         messages in flight, residuals, anchors, states
                                         of channels

    The library finds states in any chain by this mark, never by the name of a method.
    Momenta mirror the parameters in the parameters' own class, and that class may be a
    model with a method `query`.

    Args:
      state: a class of pytrees, such as a NamedTuple, with at least one of the hooks.

    Returns:
      The class.

    Raises:
      TypeError: if it is not a class, or has none of the hooks.

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
            f"`state` must be a class with one of the methods {list(_HOOKS)}, got "
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
    """Whether a class has a method of this name; a field does not count."""
    return inspect.isfunction(inspect.getattr_static(state, name, None))
