"""CHOCO's channel in the order of its authors' code: nobody waits for messages."""

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
def gossip_differences_overlapped(
    topology: Topology,
    compressor: Compressor,
    consensus_step: float,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Moves to the neighbours as they were, and sends what changed for the next call.

        mean_i = tree_i + consensus_step * sum over j of W_ij (h_j - h_i)
        q_i = C(mean_i - h_i);  h_j <- h_j + q_j, of this worker and its neighbours

    It is `gossip_differences` in the other order, that of the authors' code. The mean
    needs the estimates of the call before. So messages travel while the next gradient
    is computed. It suits parameters that go on from the mean; the first call returns
    the tree.

    The estimates h begin at zero, as in the authors' code for deep learning. Their
    NumPy code begins them at the parameters that all workers start from, which
    `optax.tree.set(state, estimate=params)` does to the state of `choco_sgd`.

    Args:
      topology: who receives from whom; doubly stochastic, with one round. See
        `gmc_jax.topologies`.
      compressor: what encodes the differences; it need not be shared.
      consensus_step: gamma in the paper, in (0, 1], as for `gossip_differences`.
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
      `mean` depends on no message of this call.

    References:
      Koloskova, Lin, Stich and Jaggi, "Decentralized Deep Learning with Arbitrary
      Communication Compression", ICLR 2020, and the authors' code.
    """
    checks.fraction(consensus_step=consensus_step)
    messages = compressed_neighbours(
        "gossip_differences_overlapped",
        topology,
        compressor,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )

    def step_first(tree, state):
        mean = step_to_neighbours(tree, state, consensus_step)
        return mean, send_difference(messages, mean, state, tree)

    return channel_of_differences(messages, step_first)
