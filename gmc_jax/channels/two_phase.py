"""The channel that encodes slices, averages each on one worker, and encodes again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._collectives import exchange_rows, gather, run_collective
from gmc_jax.channels._exchange import unscaled
from gmc_jax.channels._keys import keys_of_call
from gmc_jax.channels.compressed import channel_on_vectors
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.channels.sharded.stacks import Vectors, alike, split_leaf, split_vectors
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import downcast, mean_of, scale_floats, shares, upcast


@call_repr
def two_phase(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Averages through two messages a worker, however many workers there are.

        all-to-all:  worker j receives C(x_k[j]) of all workers k
        m[j] = mean over k of C(x_k[j]);  lost_k = x_k - C(x_k)
        all-gather:  mean[j] = C(m[j]);   lost_j[j] += K (m[j] - C(m[j]))

    Here x_k[j] is the j-th of K slices of worker k's vector. Each slice is encoded as a
    vector of its own. Worker j owns slice j: it decodes and averages the slice of all
    workers, in float32 or wider, and encodes the mean again. What this second encoding
    loses is in the owner's `lost`, K times as large, since the law is about the mean
    over workers. So `error_feedback(two_phase(compressor))` keeps both residuals in one
    tree.

    Use it for messages that are dense: signs and other codes of few bits. Through
    `all_gather` a worker would receive K - 1 of them. A sparse message of the mean
    holds no more entries than that of one worker, so most of what was sent is lost
    again. Through a shared compressor both encodings draw the same entries, and the
    second loses nothing; `all_reduce` sends the same with less work.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, where `step` is the
    number of calls before it. With `per_leaf`, the index of the leaf among
    `jax.tree.leaves` of the tree is folded in. Then, unless the compressor is shared,
    the index of the worker is folded in, and K in its place for the second encoding.
    The index of the slice is folded in last.

    Vectors are padded with zeros to K slices of one size. The zeros are encoded, and
    what is decoded in their place is dropped. `bits` counts the message that one worker
    sends, as of the whole vector. It does not count the slice of the mean that the
    worker sends, which is 1 / K of a message, nor padding, nor that each slice has
    scales of its own.

    With `per_leaf`, leaves may be split over the devices of a worker (see
    `distribute`). Then each device encodes K slices of its own shard. Of leaves that
    several devices hold, each of them sends a copy.

    Args:
      compressor: what encodes the slices, both times.
      per_leaf: whether each leaf is cut into K slices, or the whole tree as one vector.
        A slice is a vector: the shape of the leaf is lost.
      seed: of the compressor's draws. Give two channels of one method two seeds, or
        they draw the same entries.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: from `average` and `bits` if a vector has 2^31 entries or more;
        from `average` if a vector of the whole tree is split inside a worker.

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      Through `dense()` it is the exact mean, to rounding.
      One worker loses x - C(C(x)).
      The all-to-all takes K messages of a slice, and the all-gather one.
      `lost` of finite trees may overflow if entries exceed 1 / K of the largest float.

    References:
      Tang et al., "1-bit Adam: Communication Efficient Large-Scale Training with Adam's
      Convergence Speed", ICML 2021: the compressed all-reduce, there with two
      residuals.
    """

    def on_vectors(
        shards: Shards, tree: Tree, vectors: Vectors, step: jax.Array
    ) -> tuple[Vectors, Vectors]:
        if not per_leaf:
            _check_whole(shards)
        workers = workers_on(axis_name, "two_phase")
        keys = keys_of_call(seed, step, per_leaf, len(shards.shapes))
        split = split_vectors(shards, True) if per_leaf else []
        groups = {group[0]: group for group in alike(shards, tree, per_leaf)}
        stacks = {}
        for leaf, x in vectors.items():
            own_keys = keys[jnp.array(groups.get(leaf, [leaf]))]
            if leaf in split:
                shard = lax.axis_index(shards.axes_of(leaf))
                own_keys = jax.vmap(jax.random.fold_in, (0, None))(own_keys, shard)
            stack = x.reshape(-1, x.shape[-1])
            stacks[leaf] = _Stack(compressor, own_keys, stack, workers, axis_name)
        means, lost = _exchange(stacks, axis_name)
        return (
            {leaf: mean.reshape(vectors[leaf].shape) for leaf, mean in means.items()},
            {leaf: rest.reshape(vectors[leaf].shape) for leaf, rest in lost.items()},
        )

    return channel_on_vectors(
        "two_phase",
        compressor,
        on_vectors,
        lambda: workers_on(axis_name, "two_phase"),
        unscaled,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )


@dataclass(frozen=True)
class _Stack:
    """Vectors that are alike, which are cut into K slices together.

    Attributes:
      compressor: encodes each slice.
      keys: of the vectors, [n].
      vectors: [n, d].
      workers: K.
      axis_name: the named axis whose indices are the workers.
    """

    compressor: Compressor
    keys: jax.Array
    vectors: jax.Array
    workers: int
    axis_name: str

    @property
    def size(self) -> int:
        """The entries of a slice."""
        return math.ceil(self.vectors.shape[-1] / self.workers)

    def encode(self) -> tuple[Tree, jax.Array]:
        """The messages of all slices, [K, n, ...], and what is lost, [n, K, size]."""
        padding = self.workers * self.size - self.vectors.shape[-1]
        padded = jnp.pad(self.vectors, ((0, 0), (0, padding)))
        slices = padded.reshape(-1, self.workers, self.size)
        encode = jax.vmap(jax.vmap(self.compressor.encode), out_axes=(1, 0))
        return encode(self._keys(lax.axis_index(self.axis_name)), slices)

    def encode_mean(self, received: Tree) -> tuple[Tree, jax.Array]:
        """The message of the own slice of the mean, [n, ...], and what is lost.

        Args:
          received: the messages of this slice of all workers, [K, n, ...].
        """
        own = lax.axis_index(self.axis_name)
        is_linear = self.compressor.linear
        share, divisor = shares(self.workers) if is_linear else (1.0, self.workers)

        def total(key: jax.Array, messages: Tree) -> jax.Array:
            return self.compressor.decode(key, messages, self._like)

        messages = scale_floats(upcast(received), share)
        totals = jax.vmap(total, (0, 1))(self._keys(0)[:, own], messages)
        mean = mean_of(totals, divisor)
        places = own * self.size + jnp.arange(self.size, dtype=jnp.int32)
        mean = jnp.where(places < self.vectors.shape[-1], mean, 0)
        sent = downcast(mean, self.vectors)
        keys = self._keys(self.workers)[:, own]
        message, lost = jax.vmap(self.compressor.encode)(keys, sent)
        return message, upcast(lost) + (mean - upcast(sent))

    def decode(self, received: Tree) -> jax.Array:
        """The mean, [n, d], from the messages of all slices, [K, n, ...]."""

        def of_one(key: jax.Array, message: Tree) -> jax.Array:
            stacked = jax.tree.map(lambda leaf: leaf[None], message)
            return self.compressor.decode(key, stacked, self._like)

        of_slices = jax.vmap(jax.vmap(of_one), (0, 1))
        return self._join(of_slices(self._keys(self.workers), upcast(received)))

    def add_to_own(self, lost: jax.Array, of_mean: jax.Array) -> jax.Array:
        """Adds K times what the mean of the own slice lost to what slices lost."""
        own = lax.axis_index(self.axis_name)
        return self._join(upcast(lost).at[:, own].add(self.workers * of_mean))

    @property
    def _like(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.size,), self.vectors.dtype)

    def _keys(self, sender: jax.typing.ArrayLike) -> jax.Array:
        """The keys of all slices, [n, K]. The sender of means is K."""
        keys = self.keys
        if not self.compressor.shared:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, sender)
        places = jnp.arange(self.workers, dtype=jnp.int32)
        of_slices = jax.vmap(jax.random.fold_in, (None, 0))
        return jax.vmap(of_slices, (0, None))(keys, places)

    def _join(self, slices: jax.Array) -> jax.Array:
        return slices.reshape(len(slices), -1)[:, : self.vectors.shape[-1]]


def _exchange(stacks: dict[int, _Stack], axis_name: str) -> tuple[Vectors, Vectors]:
    """The means of all stacks, and what is lost."""
    encoded = {leaf: stack.encode() for leaf, stack in stacks.items()}
    sent = {leaf: messages for leaf, (messages, _) in encoded.items()}
    received = run_collective(
        sent, lambda rows: exchange_rows(rows, axis_name), leading=1
    )
    again = {leaf: stack.encode_mean(received[leaf]) for leaf, stack in stacks.items()}
    sent = {leaf: message for leaf, (message, _) in again.items()}
    received = run_collective(sent, lambda flat: gather(flat, axis_name))
    means = {leaf: stack.decode(received[leaf]) for leaf, stack in stacks.items()}
    lost = {
        leaf: stack.add_to_own(encoded[leaf][1], again[leaf][1])
        for leaf, stack in stacks.items()
    }
    return means, lost


def _check_whole(shards: Shards) -> None:
    is_split = split_leaf(shards)
    if is_split:
        raise ValueError(
            f"`two_phase` must cut slices leaf by leaf, since {is_split}. Slices of "
            "the whole tree would not lie on one device. Pass "
            "`two_phase(..., per_leaf=True)`."
        )
