"""CHOCO's channel: neighbours send each other compressed differences to estimates."""

from __future__ import annotations

from gmc_jax.channels._compressed_neighbours import compressed_neighbours
from gmc_jax.channels._differences import (
    channel_of_differences,
    send_difference,
    step_to_neighbours,
)
from gmc_jax.core import Channel, Compressor
from gmc_jax.graphs.topology import Topology
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def gossip_differences(
    topology: Topology,
    compressor: Compressor,
    consensus_step: float,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Sends what changed since the last call, compressed, and moves to the neighbours.

        q_i = C(tree_i - h_i);  h_j <- h_j + q_j, of this worker and its neighbours
        mean_i = tree_i + consensus_step * sum over j of W_ij (h_j - h_i)

    h_j, x_hat in the paper, is the estimate of worker j that it and its neighbours have
    alike. It starts at zero. As trees settle, differences become small, and so does
    what compression loses of them. Nothing is lost for good: a later difference still
    holds it. Neither a copy of each neighbour nor the sum of W_ij h_j is kept, but the
    sum of W_ij (h_j - h_i), which one vector holds whatever the number of neighbours.

    It averages parameters, as `gossip` does: `adapt_then_combine(gossip_differences(
    ...))`. It waits for the messages. `gossip_differences_overlapped` does not.
    Messages, draws and split leaves are as in `compressed_gossip`.

    Args:
      topology: who receives from whom; doubly stochastic, with one round. See
        `gmc_jax.topologies`.
      compressor: what encodes the differences; it need not be shared.
      consensus_step: gamma in the paper, in (0, 1]. The more is lost, the smaller it
        must be, or workers diverge; the paper tunes it for each compressor. 1 is for
        compressors that lose nothing.
      per_leaf: whether each leaf is compressed by itself, or the whole tree as one
        vector.
      seed: of the compressor's draws; give two channels of one method two seeds.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `GossipDifferencesState`. Its means differ between workers. Bits
      and entries are those of `compressed_gossip`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is no topology or `compressor` no compressor; from `init`
        and `average` if a leaf is not floating.
      ValueError: if the rows or columns of `topology` do not sum to 1, it has several
        rounds, or `consensus_step` is not in (0, 1]; from `average` as from that of
        `compressed_gossip`.

    Guarantees:
      The law of channels, and `lost` is zero: the mean of trees is kept, whatever the
      compressor.
      Through `dense()` with `consensus_step=1` it is `gossip(topology)`, to rounding.

    References:
      Koloskova, Stich and Jaggi, "Decentralized Stochastic Optimization and Gossip
      Algorithms with Compressed Communication", ICML 2019: Algorithm 1, with
      one vector for all neighbours.
    """
    checks.fraction(consensus_step=consensus_step)
    messages = compressed_neighbours(
        "gossip_differences",
        topology,
        compressor,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )

    def send_first(tree, state):
        state = send_difference(messages, tree, state, tree)
        return step_to_neighbours(tree, state, consensus_step), state

    return channel_of_differences(messages, send_first)
