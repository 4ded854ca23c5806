"""Compressed messages from worker to worker, and their averages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import optax
from jax import lax

from gmc_jax.channels._exchange import unscaled
from gmc_jax.channels._keys import key_of_worker, keys_of_call
from gmc_jax.channels._neighbours import check_workers, weigh
from gmc_jax.channels.compressed import channel_on_vectors
from gmc_jax.channels.sharded.codec import between_workers, check_selects, codec
from gmc_jax.channels.sharded.shard_codecs import Codec
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.channels.sharded.stacks import Vectors
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.graphs.matchings import Matching, busiest
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic
from gmc_jax.utils import checks
from gmc_jax.utils.trees import upcast


def compressed_neighbours(
    caller: str,
    topology: Topology,
    compressor: Compressor,
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
) -> Channel:
    """The channel `compressed_gossip`, in the name of its caller."""
    check_doubly_stochastic(topology)
    _check_one_round(topology)
    checks.compressor(compressor=compressor)
    (mixing,) = topology.mixing
    (matchings,) = topology.matchings
    messages = busiest(mixing)

    def receive(
        messages: dict[int, Tree], matching: Matching, coder: Codec, shards: Shards
    ) -> dict[int, Tree]:
        def permute(flat: jax.Array) -> jax.Array:
            return lax.ppermute(flat, axis_name=axis_name, perm=matching.pairs)[None]

        return upcast(between_workers(permute, coder, shards, messages))

    def on_vectors(
        shards: Shards, tree: Tree, vectors: Vectors, step: jax.Array
    ) -> tuple[Vectors, Vectors]:
        check_selects(compressor, shards, per_leaf, caller)
        keys = keys_of_call(seed, step, per_leaf, len(shards.shapes))
        own_keys = jax.vmap(partial(key_of_worker, compressor, axis_name=axis_name))
        coder = codec(compressor, shards, tree, vectors, per_leaf)
        messages, lost = coder.encode(own_keys(keys), vectors)
        own = optax.tree.sub(upcast(vectors), upcast(lost))
        means = weigh(own, mixing.diagonal(), axis_name)
        for matching in matchings:
            received = receive(messages, matching, coder, shards)
            received = weigh(coder.decode(keys, received), matching.weights, axis_name)
            means = optax.tree.add(means, received)
        return means, lost

    channel = channel_on_vectors(
        caller,
        _places_as_values(compressor),  # They count messages; `on_vectors` encodes.
        on_vectors,
        lambda: check_workers(topology, axis_name, caller),
        unscaled,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )

    def times(count: Callable[[Tree], int | None]) -> Callable[[Tree], int]:
        return lambda tree: messages * (count(tree) or 0)

    return channel._replace(bits=times(channel.bits), entries=times(channel.entries))


def _check_one_round(topology: Topology) -> None:
    """Raises ValueError unless the weights of a topology never change."""
    if len(topology.mixing) > 1:
        raise ValueError(
            f"`topology` must have one round, got {len(topology.mixing)}; sums over "
            "neighbours are kept from call to call, which is exact for fixed weights "
            "alone. Use `ring`, `torus`, `exponential` or `from_adjacency`."
        )


def _places_as_values(compressor: Compressor) -> Compressor:
    """A compressor in whose messages indices count as values."""

    def encode(key: jax.Array, x: jax.Array) -> tuple[Tree, jax.Array]:
        message, lost = compressor.encode(key, x)
        return tuple(jax.tree.leaves(message)), lost

    return compressor._replace(encode=encode)
