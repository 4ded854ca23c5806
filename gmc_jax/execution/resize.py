"""Going on with another number of workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.core import Tree, has_hook
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.transforms.periodic import PeriodicState
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import Kind
from gmc_jax.utils.multihost import fetch
from gmc_jax.utils.prng_keys import is_key, is_raw_key
from gmc_jax.utils.trees import find_hooks

_NEW = 0x6E6577  # Apart from the steps and workers that loops fold into keys.

Rule: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
"""From what all workers have of a leaf, and a number, to what so many others have."""


def first(state: Tree) -> Tree:
    """The first part of a state, where parameters are by custom."""
    return state[0]


def resize(
    state: Tree,
    layout: Layout,
    workers: int,
    *,
    params: Callable[[Tree], Tree] = first,
) -> Tree:
    """Makes the state of K workers one of K' workers, who all start from their mean.

        x'_j = mean over k of x_k  for every new worker j

    The change is a meeting of the workers there were. What methods promise of a mean
    over workers (parameters move by the mean step; residual and what was sent add up to
    all updates) is linear in what they keep, so that the mean of every leaf keeps all
    of it at once. What becomes of the leaves that differ:

        floats: parameters, residuals,     their mean, accumulated in float64 and
        momenta, Adam's moments, batch     rounded once: the mean residual is that of
        statistics                         before to 1/2 ulp
        push-sum                           parameters: the mean of w_k z_k; weights are
                                           1. With a delay w_k counts what is in flight
                                           as well; weights and messages: their means
        CSER's x_k and e_k, D2's c_k,      their means: x - e stays the anchor, c the
        gradient tracking's y_k            mean 0, and y the mean gradient
        `periodic`, in mid-period          the anchor and the count stay, and the way so
                                           far is the mean way: the meeting comes when
                                           it would have, to where it would have led
        whole numbers                      the mean, shared out: K' numbers, no two
                                           further apart than 1, whose sum is nearest to
                                           K' times the mean
        the counts of `count_entries`      the same, as 64-bit numbers: `relative_cost`
                                           stays what it was to half an entry
        booleans                           what most workers have; False in a tie
        random keys (typed, or raw:        those of the first K' workers; further ones
        uint32 of a key's shape)           are drawn from them, no two alike

    What is the same on all workers stays as it is, schedules, momentum and the draws of
    channels included. States with a hook `sync_weighted(way)` or `on_sync(start, end)`
    are asked as where `periodic` meets. They are found where the state holds them as
    the method made them: `nnx.split` takes the state of an `nnx.Optimizer` apart into
    dictionaries, so keep parameters and `tx.init(params)` in the state instead.

    Make the layout, and the step, anew for the new number. A method with a topology
    needs one of as many workers, and its state fits, whatever the topology; a delay
    must stay what it is. States of `ad_psgd` and `a_psgd` have no layout, and cannot be
    resized.

    Args:
      state: as it is kept between steps: leaves that differ have a leading axis of
        workers. Arrays of JAX or NumPy, of any sharding; keys typed, or as `fetch` has
        them. Over several processes all of them must call this together.
      layout: of that state.
      workers: the new number, K', at least 1.
      params: selects the parameters, for states that are asked about them, such as
        push-sum's; the first part of the state, unless told otherwise.

    Returns:
      The state as it is kept for `workers`, copied to the default device and committed
      to none; as it was where the number is the same. For the train function that
      `simulate` makes for `workers`. To go on under `distribute`, place it as the state
      that comes with the function is placed, by `jax.device_put`.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1, `state` is not one
        of `layout`, `params` does not select parameters where they are needed, or the
        state has taken apart what is to be asked.

    Example:
      >>> import gmc_jax, jax, jax.numpy as jnp, optax
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
      >>> def step(state, batch):
      ...     params, opt_state = state
      ...     updates, opt_state = tx.update(params - batch, opt_state, params)
      ...     return (optax.apply_updates(params, updates), opt_state), {}
      >>> start, batch = jnp.zeros(4), jnp.ones((8, 4))
      >>> train, state = gmc_jax.simulate(step, (start, tx.init(start)), batch, 8)
      >>> state, _ = train(state, batch)
      >>> state = gmc_jax.resize(state, train.layout, workers=6)
      >>> train, fresh = gmc_jax.simulate(step, (start, tx.init(start)), batch[:6], 6)
      >>> state, _ = train(state, batch[:6])

    Guarantees:
      The mean over workers of every float that differs, push-sum's parameters weighed,
      is that of before, to one rounding; and so to the last bit when the number changes
      again before the next step.
      What methods conserve they go on conserving.
    """
    check_layout(layout)
    checks.positive_int(workers=workers)
    checks.function(params=params)
    state = _typed(state, layout)
    layout.check_kept(state)
    kept = fetch(state)
    if workers != layout.workers:
        layout.check_whole("resize", _is_asked)
        rules = _rules(layout.shapes, layout.differs)
        met = _meet(kept, layout, params)
        kept = jax.tree.map(lambda rule, leaf: rule(leaf, workers), rules, met)
    return jax.tree.map(_on_device, kept, layout.shapes)


def _rules(shapes: Tree, differs: Tree) -> Tree:
    """What becomes of each leaf."""

    def rule(node: Tree, differing: Tree) -> Tree:
        if isinstance(node, CountEntriesState):
            rules = CountEntriesState(*_rules(tuple(node), tuple(differing)))
            halves = {
                name: _counts if getattr(differing, name) else _same
                for name in ("up", "down", "dense")
            }
            return rules._replace(**halves)
        return _rule(node) if differing else _same

    return jax.tree.map(
        rule, shapes, differs, is_leaf=lambda node: isinstance(node, CountEntriesState)
    )


def _rule(one: jax.ShapeDtypeStruct) -> Rule:
    if is_key(one):
        return partial(_keys, impl=_implementation(one))
    if jnp.issubdtype(one.dtype, jnp.inexact):
        return partial(_mean, dtype=one.dtype)
    if one.dtype == bool:
        return _majority
    if is_raw_key(one):
        return partial(_keys, impl=None)
    return _shared_out


def _is_asked(kind: Kind) -> bool:
    """Whether the mean of each leaf is not all that becomes of such states."""
    hooks = {"sync_weighted", "on_sync"}.intersection(kind.hooks)
    return bool(hooks) or kind.name == CountEntriesState.__name__


def _same(leaf: np.ndarray, workers: int) -> np.ndarray:
    del workers
    return leaf


def _mean(leaf: np.ndarray, workers: int, dtype: jnp.dtype) -> np.ndarray:
    return _for_all(_average(leaf).astype(dtype), workers)


def _majority(leaf: np.ndarray, workers: int) -> np.ndarray:
    return _for_all(2 * leaf.sum(axis=0) > len(leaf), workers)


def _shared_out(leaf: np.ndarray, workers: int) -> np.ndarray:
    # Python's integers where 64 bits would not hold the sum.
    exact = leaf.astype(object if leaf.dtype.itemsize == 8 else np.int64)
    least = exact.min(axis=0)
    total = (2 * (exact - least).sum(axis=0) * workers + len(leaf)) // (2 * len(leaf))
    ends = [total * worker // workers for worker in range(workers + 1)]
    shares = [least + (end - begin) for begin, end in pairwise(ends)]
    return np.stack([np.asarray(share).astype(leaf.dtype) for share in shares])


def _counts(leaf: np.ndarray, workers: int) -> np.ndarray:
    """Of [K, 2] high and low halves."""
    whole = leaf[:, 0].astype(np.uint64) << 32 | leaf[:, 1]
    shared = _shared_out(whole, workers)
    return np.stack([shared >> 32, shared & 0xFFFFFFFF], axis=1).astype(leaf.dtype)


def _keys(leaf: np.ndarray, workers: int, impl: str | None) -> np.ndarray:
    """Of the data of keys; None for those of the default implementation."""
    known = len(leaf)
    keys = jax.random.wrap_key_data(jnp.asarray(leaf), impl=impl)

    def of(worker: int) -> jax.Array:
        if worker < known:
            return keys[worker]

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.fold_in(jax.random.fold_in(key, _NEW), worker)

        own = keys[worker % known]
        return jax.vmap(draw)(own.reshape(-1)).reshape(own.shape)

    data = [np.asarray(jax.random.key_data(of(worker))) for worker in range(workers)]
    return np.stack(data)


def _wide(leaf: np.ndarray) -> np.ndarray:
    """Floats in float64, numbers of another kind as they are."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.astype(np.complex128)
    return leaf.astype(np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _average(leaf: np.ndarray) -> np.ndarray:
    """The mean over workers, in float64; exact where all have the same."""
    wide = _wide(leaf)
    with np.errstate(all="ignore"):  # What is not finite stays so.
        return wide[0] + (wide - wide[0]).mean(axis=0)


def _for_all(one: np.ndarray, workers: int) -> np.ndarray:
    return np.broadcast_to(one, (workers, *one.shape))


def _meet(kept: Tree, layout: Layout, params: Callable[[Tree], Tree]) -> Tree:
    """Asks the states that weigh workers, or must know where these are led."""
    if not _listening(kept):
        return kept
    leaves, treedef = jax.tree.flatten(kept)
    differing = jax.tree.leaves(layout.differs)

    def of(worker: int) -> Tree:
        own = [
            _wide(leaf[worker]) if differs else leaf
            for leaf, differs in zip(leaves, differing, strict=True)
        ]
        return treedef.unflatten(own)

    own = [of(worker) for worker in range(layout.workers)]
    try:
        chosen = jax.tree.leaves(params(treedef.unflatten(range(len(leaves)))))
        # Hooks of states compute in float64 as well.
        with jax.enable_x64(True):
            ways = [sync_weighted(params(state), state) for state in own]
            end = jax.tree.map(lambda *way: _average(np.stack(way)), *ways)
            led = [_led(state, params(state), end) for state in own]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "`params` must select the parameters, since states such as push-sum's are "
            "asked what a meeting makes of them, but it does not select any that fit "
            f"these states ({error}). Pass, say, `params=lambda state: state['params']`"
            "."
        ) from error
    new = [list(each) for each in zip(*map(jax.tree.leaves, led), strict=True)]
    for place, leaf in zip(chosen, jax.tree.leaves(end), strict=True):
        new[place] = [leaf if differing[place] else leaves[place]] * layout.workers
    met = [
        np.stack(each) if differs else np.asarray(each[0], leaf.dtype)
        for leaf, each, differs in zip(leaves, new, differing, strict=True)
    ]
    return treedef.unflatten(met)


def _listening(state: Tree) -> bool:
    """Whether a state has a method that meetings call, other than `periodic`'s."""
    nodes = find_hooks(state, "on_sync") + find_hooks(state, "sync_weighted")
    return any(
        _listening(node.inner) if isinstance(node, PeriodicState) else True
        for node in nodes
    )


def _led(state: Tree, start: Tree, end: Tree) -> Tree:
    """As `on_sync`, but that periods go on: their meeting is still to come."""

    def is_led(node: Tree) -> bool:
        return isinstance(node, PeriodicState) or has_hook(node, "on_sync")

    def lead(node: Tree) -> Tree:
        if isinstance(node, PeriodicState):
            return node._replace(inner=_led(node.inner, start, end))
        return on_sync(node, start, end)

    return jax.tree.map(lead, state, is_leaf=is_led)


def _implementation(one: jax.ShapeDtypeStruct) -> str:
    """The name of the generator of typed keys."""
    names = []
    jax.eval_shape(lambda key: names.append(jax.random.key_impl(key)), one)
    return names[0]


def _typed(state: Tree, layout: Layout) -> Tree:
    """The state with keys in the place of their data."""

    def wrap(leaf: jax.Array, one: jax.ShapeDtypeStruct) -> jax.Array:
        if not is_key(one) or is_key(leaf):
            return leaf
        return jax.random.wrap_key_data(jnp.asarray(leaf), impl=_implementation(one))

    if jax.tree.structure(state) != jax.tree.structure(layout.shapes):
        return state
    return jax.tree.map(wrap, state, layout.shapes)


def _on_device(leaf: np.ndarray, one: jax.ShapeDtypeStruct) -> jax.Array:
    if is_key(one):
        return jax.random.wrap_key_data(jnp.array(leaf), impl=_implementation(one))
    return jnp.array(leaf)
