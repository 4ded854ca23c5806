"""Continues training with another number of workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.channels.delayed_messages import DelayedMessagesState
from gmc_jax.core import Tree, has_hook
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.transforms.periodic import PeriodicState
from gmc_jax.transforms.streaming import StreamingState
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import StateClass
from gmc_jax.utils.multihost import fetch
from gmc_jax.utils.prng_keys import is_key, is_raw_key
from gmc_jax.utils.trees import find_hooks

# Resizing in the midst of a period does not end it.
_IN_PERIODS = PeriodicState, StreamingState
_OF_OWN_RULES = CountEntriesState, DelayedMessagesState
_NEW = 0x6E6577  # "new": unlike the steps and workers that loops fold into keys.

Rule: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
"""`(leaf of the old workers, number of new workers) -> leaf of the new workers`."""


def first(state: Tree) -> Tree:
    """Returns the first part of a state, by custom the parameters."""
    return state[0]


def resize(
    state: Tree,
    layout: Layout,
    workers: int,
    *,
    params: Callable[[Tree], Tree] = first,
) -> Tree:
    """Turns the state of K workers into one of K' workers, who start from the mean.

        x'_j = mean over k of x_k  for every new worker j

    Resizing acts like one synchronisation of the old workers. What methods conserve are
    means over workers: parameters move by the mean step; residuals and sent messages
    add up to all updates. Such means are linear in the state, so averaging every leaf
    conserves all of them. The rules for leaves that differ between workers:

        floats: parameters, residuals,     the mean, accumulated in float64 and rounded
        momenta, Adam's moments, batch     once: the mean residual changes by at most
        statistics                         1/2 ulp
        push-sum                           parameters: the mean of w_k z_k, with weights
                                           1. With a delay, w_k counts messages in
                                           flight too; weights and messages: the means
        CSER's x_k and e_k, D2's c_k,      the means: x - e stays the anchor, c keeps
        gradient tracking's y_k            the mean 0, y stays the mean gradient
        `periodic`, in mid-period          the anchor and the count stay, and the
                                           pseudo-gradient so far is the mean: the next
                                           synchronisation comes at the same step, and
                                           leads to the same point
        `streaming`                        the same for each fragment; what is in flight
                                           is the mean
        `all_gather` and `all_reduce`      what is in flight is the mean. It is no
        with a delay                       message any more: the next call adds it to
                                           its tree
        whole numbers                      the mean, distributed: K' numbers, no two
                                           further apart than 1, whose sum is nearest to
                                           K' times the mean
        the counts of `count_entries`      the same, as 64-bit numbers: `relative_cost`
                                           changes by at most half an entry
        booleans                           the majority; False in a tie
        random keys (typed, or raw:        those of the first K' workers; further keys
        uint32 of a key's shape)           are drawn from them, no two alike

    Leaves that are the same on all workers stay unchanged: schedules, momentum and the
    draws of channels, for example. The hooks `sync_weighted` and `on_sync` are called
    as at a synchronisation of `periodic`. States with these hooks must be of the
    classes that the method made. `nnx.split` turns the state of an `nnx.Optimizer` into
    dictionaries, so keep parameters and `tx.init(params)` in the state instead.

    Make the step and its layout anew for the new number. A method with a topology needs
    one of that many workers, of any kind. A method with a delay must keep its delay.
    States of `ad_psgd` and `a_psgd` have no layout and cannot be resized.

    Args:
      state: the state as it is kept between steps: leaves that differ have a leading
        axis of workers. Arrays of JAX or NumPy, of any sharding; keys are typed, or
        their data as `fetch` returns it. Over several processes, all processes must
        call it together.
      layout: the layout of that state.
      workers: the new number of workers, K', at least 1.
      params: selects the parameters, for states whose hooks need them, such as
        push-sum's; by default the first part of the state.

    Returns:
      The state of `workers` as it is kept, for the `train` that `simulate` makes for
      `workers`. It is copied to the default device and committed to none. To continue
      under `distribute`, place it by `jax.device_put` as the state that `distribute`
      returns is placed. If the number does not change, the values are those of `state`.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1; if `state` does not
        fit `layout`; if a hook needs the parameters and `params` does not select them;
        if the step updates a state with such a hook that `state` does not hold.

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
      The mean over workers of every float that differs (for push-sum's parameters, the
      weighted mean) changes by one rounding; if the number changes again before the
      next step, by none.
      Quantities that methods conserve stay conserved.
    """
    check_layout(layout)
    checks.positive_int(workers=workers)
    checks.function(params=params)
    state = _typed(state, layout)
    layout.check_kept(state)
    kept = fetch(state)
    if workers != layout.workers:
        layout.check_holds("resize", _has_rule_of_its_own)
        rules = _rules(layout.shapes, layout.differs)
        synchronised = _synchronise(kept, layout, params)
        kept = jax.tree.map(lambda rule, leaf: rule(leaf, workers), rules, synchronised)
    return jax.tree.map(_on_device, kept, layout.shapes)


def _rules(shapes: Tree, differs: Tree) -> Tree:
    """Returns the rule of each leaf."""

    def rule(node: Tree, differing: Tree) -> Tree:
        if isinstance(node, CountEntriesState):
            rules = CountEntriesState(*_rules(tuple(node), tuple(differing)))
            halves = {
                name: _counts if getattr(differing, name) else _same
                for name in ("up", "down", "dense")
            }
            return rules._replace(**halves)
        if isinstance(node, DelayedMessagesState):
            rules = DelayedMessagesState(*_rules(tuple(node), tuple(differing)))
            # Messages cannot be averaged. So the next call sends `in_flight` again.
            messages = _empty if differing.messages else _empty_same
            return rules._replace(encoded=_empty_same, messages=messages)
        return _rule(node) if differing else _same

    return jax.tree.map(
        rule, shapes, differs, is_leaf=lambda node: isinstance(node, _OF_OWN_RULES)
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
    return _distribute_mean


def _has_rule_of_its_own(cls: StateClass) -> bool:
    """Whether averaging each leaf does not suffice for states of a class."""
    hooks = {"sync_weighted", "on_sync"}.intersection(cls.hooks)
    return bool(hooks) or cls.name in {kind.__name__ for kind in _OF_OWN_RULES}


def _same(leaf: np.ndarray, workers: int) -> np.ndarray:
    del workers
    return leaf


def _empty(leaf: np.ndarray, workers: int) -> np.ndarray:
    return np.zeros((workers, *leaf.shape[1:]), leaf.dtype)


def _empty_same(leaf: np.ndarray, workers: int) -> np.ndarray:
    del workers
    return np.zeros_like(leaf)


def _mean(leaf: np.ndarray, workers: int, dtype: jnp.dtype) -> np.ndarray:
    return _for_all(_average(leaf).astype(dtype), workers)


def _majority(leaf: np.ndarray, workers: int) -> np.ndarray:
    return _for_all(2 * leaf.sum(axis=0) > len(leaf), workers)


def _distribute_mean(leaf: np.ndarray, workers: int) -> np.ndarray:
    # Python's integers, since 64 bits may not hold the sum of 64-bit ones.
    exact = leaf.astype(object if leaf.dtype.itemsize == 8 else np.int64)
    least = exact.min(axis=0)
    total = (2 * (exact - least).sum(axis=0) * workers + len(leaf)) // (2 * len(leaf))
    ends = [total * worker // workers for worker in range(workers + 1)]
    shares = [least + (end - begin) for begin, end in pairwise(ends)]
    return np.stack([np.asarray(share).astype(leaf.dtype) for share in shares])


def _counts(leaf: np.ndarray, workers: int) -> np.ndarray:
    """Distributes the mean of 64-bit counts, kept as [K, 2] high and low halves."""
    whole = leaf[:, 0].astype(np.uint64) << 32 | leaf[:, 1]
    counts = _distribute_mean(whole, workers)
    return np.stack([counts >> 32, counts & 0xFFFFFFFF], axis=1).astype(leaf.dtype)


def _keys(leaf: np.ndarray, workers: int, impl: str | None) -> np.ndarray:
    """Keeps the keys of old workers and draws further ones, all of them as key data.

    `impl` names the generator of the keys; None for the default one.
    """
    known = len(leaf)
    keys = jax.random.wrap_key_data(jnp.asarray(leaf), impl=impl)

    def key_of(worker: int) -> jax.Array:
        if worker < known:
            return keys[worker]

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.fold_in(jax.random.fold_in(key, _NEW), worker)

        own = keys[worker % known]
        return jax.vmap(draw)(own.reshape(-1)).reshape(own.shape)

    data = [jax.random.key_data(key_of(worker)) for worker in range(workers)]
    return np.stack(list(map(np.asarray, data)))


def _to_float64(leaf: np.ndarray) -> np.ndarray:
    """Casts floats to float64 and complex numbers to complex128, and nothing else."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.astype(np.complex128)
    return leaf.astype(np.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _average(leaf: np.ndarray) -> np.ndarray:
    """Averages over workers in float64; the mean of equal values is that very value."""
    wide = _to_float64(leaf)
    with np.errstate(all="ignore"):  # Infinities and NaNs propagate.
        return wide[0] + (wide - wide[0]).mean(axis=0)


def _for_all(one: np.ndarray, workers: int) -> np.ndarray:
    return np.broadcast_to(one, (workers, *one.shape))


def _synchronise(kept: Tree, layout: Layout, params: Callable[[Tree], Tree]) -> Tree:
    """Calls the hooks of a synchronisation, if a state has any."""
    if not _has_sync_hooks(kept):
        return kept
    leaves, treedef = jax.tree.flatten(kept)
    differing = jax.tree.leaves(layout.differs)

    def state_of(worker: int) -> Tree:
        own = [
            _to_float64(leaf[worker]) if differs else leaf
            for leaf, differs in zip(leaves, differing, strict=True)
        ]
        return treedef.unflatten(own)

    states = [state_of(worker) for worker in range(layout.workers)]
    try:
        places = jax.tree.leaves(params(treedef.unflatten(range(len(leaves)))))
        # With 64 bits, so that hooks compute in float64 as well.
        with jax.enable_x64(True):
            weighted = [sync_weighted(params(state), state) for state in states]
            end = jax.tree.map(lambda *each: _average(np.stack(each)), *weighted)
            after = [_after_sync(state, params(state), end) for state in states]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "`params` must select the parameters, since the hooks of states such as "
            "push-sum's need them, but it selects none that fit these states "
            f"({error}). Pass, for example, `params=lambda state: state['params']`."
        ) from error
    new = [list(each) for each in zip(*map(jax.tree.leaves, after), strict=True)]
    for place, leaf in zip(places, jax.tree.leaves(end), strict=True):
        new[place] = [leaf if differing[place] else leaves[place]] * layout.workers
    synchronised = [
        np.stack(each) if differs else np.asarray(each[0], leaf.dtype)
        for leaf, each, differs in zip(leaves, new, differing, strict=True)
    ]
    return treedef.unflatten(synchronised)


def _has_sync_hooks(state: Tree) -> bool:
    """Whether a state has a hook of synchronisation that does not end a period."""
    nodes = find_hooks(state, "on_sync") + find_hooks(state, "sync_weighted")
    return any(
        _has_sync_hooks(node.inner) if isinstance(node, _IN_PERIODS) else True
        for node in nodes
    )


def _after_sync(state: Tree, start: Tree, end: Tree) -> Tree:
    """Calls all hooks `on_sync` but those of states whose period has not ended."""

    def has_own_rule(node: Tree) -> bool:
        return isinstance(node, _IN_PERIODS) or has_hook(node, "on_sync")

    def update(node: Tree) -> Tree:
        if isinstance(node, _IN_PERIODS):
            return node._replace(inner=_after_sync(node.inner, start, end))
        return on_sync(node, start, end)

    return jax.tree.map(update, state, is_leaf=has_own_rule)


def _implementation(one: jax.ShapeDtypeStruct) -> str:
    """Returns the name of the generator of typed keys."""
    names = []
    jax.eval_shape(lambda key: names.append(jax.random.key_impl(key)), one)
    return names[0]


def _typed(state: Tree, layout: Layout) -> Tree:
    """Returns the state with typed keys in the place of their data."""

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
