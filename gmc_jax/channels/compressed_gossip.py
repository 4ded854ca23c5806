"""The channel in which neighbours send each other compressed messages."""

from __future__ import annotations

from gmc_jax.channels._compressed_neighbours import compressed_neighbours
from gmc_jax.core import Channel, Compressor
from gmc_jax.graphs.topology import Topology
from gmc_jax.utils.call_repr import call_repr


@call_repr
def compressed_gossip(
    topology: Topology,
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Averages what the neighbours' messages decode to, with the worker's own.

        mean_i = sum over j of W_ij C(tree_j);  lost_i = tree_i - C(tree_i)

    A worker encodes once, and sends the same message to each neighbour
    (`lax.ppermute`). Its own share is what the neighbours decode, not its tree, so that
    all count the same C(tree_i). Of parameters it would lose most entries at every
    call. It is for what becomes small, such as differences: `gossip_differences` and
    `difference_compression` are made of it. Draws and split leaves are as in
    `all_gather`.

    Args:
      topology: who receives from whom; doubly stochastic, with one round. See
        `gmc_jax.topologies`.
      compressor: what encodes the tree; it need not be shared.
      per_leaf: whether each leaf is compressed by itself, or the whole tree as one
        vector.
      seed: of the compressor's draws; give two channels of one method two seeds.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`. Its means differ between workers. Its bits are
      those of the busiest worker: the size of the message times its neighbours. Among
      its entries an index counts as a value.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is no topology or `compressor` no compressor; from `init`
        and `average` if a leaf is not floating.
      ValueError: if the rows or columns of `topology` do not sum to 1, or it has
        several rounds; from `average` if the axis has another number of workers than
        the topology, a vector has 2^31 entries or more, or a vector is split inside a
        worker and the compressor does not say what it selects.

    Guarantees:
      The law of channels.
      Through `dense()` it is `gossip(topology)`, to rounding.

    References:
      Koloskova, Stich and Jaggi, "Decentralized Stochastic Optimization and Gossip
      Algorithms with Compressed Communication", ICML 2019.
    """
    return compressed_neighbours(
        "compressed_gossip",
        topology,
        compressor,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
