"""The steps that `compiled` compiles: GMC through every channel, and other methods."""

import jax
import optax

import gmc_jax
from gmc_jax import all_gather, all_reduce

WORKERS = 8
RATE = 0.1
AT_QUERY = {"GMC+", "DEF-A"}
"""The methods whose gradients are taken at another point than the parameters."""


def channels(ratio: float) -> dict[str, gmc_jax.Channel]:
    """The channels by name.

    Args:
      ratio: the share of the entries that messages hold.
    """
    top_k = gmc_jax.top_k(ratio)
    return {
        "exact": gmc_jax.exact(),
        "dense": all_gather(gmc_jax.dense()),
        "top_k": all_gather(top_k),
        "top_k, per leaf": all_gather(top_k, per_leaf=True),
        "threshold": all_gather(gmc_jax.threshold(0.01, ratio)),
        "sampled_top_k": all_gather(gmc_jax.sampled_top_k(ratio)),
        "random_k": all_reduce(gmc_jax.random_k(ratio)),
        "random_block": all_reduce(gmc_jax.random_block(ratio)),
        "random_block, gathered": all_gather(gmc_jax.random_block(ratio)),
        "random_block, per leaf": all_reduce(
            gmc_jax.random_block(ratio), per_leaf=True
        ),
        "scaled_sign": all_gather(gmc_jax.scaled_sign()),
        "scaled_sign, per leaf": all_gather(gmc_jax.scaled_sign(), per_leaf=True),
        "majority_vote": gmc_jax.majority_vote(),
        "quantised": all_gather(gmc_jax.quantised(top_k, gmc_jax.centroids(2))),
        "quantised, by chunks": all_gather(
            gmc_jax.quantised(gmc_jax.chunked_top_k(ratio), gmc_jax.centroids(2))
        ),
        "integers(8)": all_gather(gmc_jax.integers(8)),
        "float8": all_gather(gmc_jax.float8()),
        "powers_of_two": all_gather(gmc_jax.powers_of_two()),
        "centroids": all_gather(gmc_jax.centroids()),
        "top_k, late": all_gather(top_k, delay=1),
        "random_block, late": all_reduce(gmc_jax.random_block(ratio), delay=1),
        "two_phase, scaled_sign": gmc_jax.two_phase(gmc_jax.scaled_sign()),
        "two_phase, integers(8)": gmc_jax.two_phase(gmc_jax.integers(8)),
        "low_rank": gmc_jax.low_rank(4),
        "alternating_low_rank": gmc_jax.alternating_low_rank(4),
        "mean_of_senders": gmc_jax.mean_of_senders(top_k),
        "in_frequencies": gmc_jax.in_frequencies(
            gmc_jax.mean_of_senders(gmc_jax.top_k_of_rows(32), per_leaf=True)
        ),
        "gossip, ring": gmc_jax.gossip(gmc_jax.topologies.ring(WORKERS)),
        "join_channels": gmc_jax.join_channels(
            [all_gather(gmc_jax.top_k(4 * ratio)), all_gather(top_k)], [100]
        ),
        "simulated_server": gmc_jax.simulated_server(top_k),
    }


def methods(ratio: float) -> dict[str, optax.GradientTransformation]:
    """Methods other than GMC, by name.

    Args:
      ratio: the share of the entries that messages hold.
    """
    by = channels(ratio)
    top_k, block, exact = by["top_k"], by["random_block"], by["exact"]
    ring = gmc_jax.topologies.ring(WORKERS)
    one_peer = gmc_jax.topologies.one_peer_exponential(WORKERS)
    sgd = optax.sgd(RATE)
    return {
        "DMSGD": gmc_jax.dmsgd(RATE, exact),
        "EF-SGD": gmc_jax.ef_sgd(RATE, top_k),
        "DGC": gmc_jax.dgc(RATE, top_k),
        "GMC+": gmc_jax.gmc_plus(RATE, top_k),
        "DEF-A": gmc_jax.def_a(RATE, top_k),
        "CSER": gmc_jax.cser(RATE, block, block, period=8),
        "dist-EF-SGDM": gmc_jax.dist_ef_sgdm(RATE, top_k, by["simulated_server"]),
        "DoubleSqueeze": gmc_jax.double_squeeze(RATE, top_k, by["simulated_server"]),
        "EF-signSGD": gmc_jax.ef_sign_sgd(RATE),
        "Signum": gmc_jax.signum(RATE, by["majority_vote"]),
        "QSGD": gmc_jax.quantised_sgd(RATE),
        "TernGrad": gmc_jax.ternary_sgd(RATE),
        "PowerSGD": gmc_jax.power_sgd(RATE, by["low_rank"]),
        "EF21": gmc_jax.ef21(RATE, top_k),
        "CHOCO-SGD": gmc_jax.choco_sgd(
            RATE, gmc_jax.gossip_differences(ring, gmc_jax.top_k(ratio), 0.5)
        ),
        "DCD-PSGD": gmc_jax.dcd_psgd(
            RATE, gmc_jax.compressed_gossip(ring, gmc_jax.integers(8))
        ),
        "SlowMo": gmc_jax.slowmo(sgd, exact, period=12),
        "DiLoCo": gmc_jax.diloco(optax.adamw(RATE), exact, period=100),
        "DeMo": gmc_jax.demo(RATE),
        "SparseLoCo": gmc_jax.sparse_loco(optax.adamw(RATE), by["mean_of_senders"]),
        "local GMC": gmc_jax.periodic(sgd, gmc_jax.gmc(1.0, block), period=12),
        "D-PSGD": gmc_jax.d_psgd(RATE, ring),
        "D2": gmc_jax.d2(RATE, gmc_jax.topologies.lazy(ring)),
        "SGP": gmc_jax.sgp(RATE, one_peer),
        "GMC, guarded": gmc_jax.skip_nonfinite(gmc_jax.gmc(RATE, top_k)),
    }


def transformations(ratio: float) -> dict[str, optax.GradientTransformation]:
    """GMC through each channel, by the channel's name, and the other methods."""
    return {
        name: gmc_jax.gmc(RATE, channel) for name, channel in channels(ratio).items()
    } | methods(ratio)


def step_of(tx: optax.GradientTransformation, at_query: bool = False):
    """A step whose batch is the worker's gradient.

    Args:
      tx: the transformation.
      at_query: whether the batch is a target instead, and the gradient that of half
        the squared distance to it, taken at the point that the method asks for.
    """

    def step(state, batch):
        params, opt_state = state
        grads = batch
        if at_query:
            point = gmc_jax.query(opt_state, params)
            grads = jax.tree.map(lambda leaf, target: leaf - target, point, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    return step
