"""The tables of methods.

`METHODS` has a row for each method, and `COMPOSITIONS` one for each of `PAPERS` and for
what users compose, from the number of workers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    count_entries,
    exact,
    gossip,
    random_block,
    scaled_sign,
    simulated_server,
    top_k,
    topologies,
)
from tests.support.papers import PAPERS


class Method(NamedTuple):
    """A method for eight workers, and what differs between them.

    A path names a leaf, or the tree of the parameters' structure that has it, in the
    state of the method. "params" stands for the parameters themselves.
    """

    tx: optax.GradientTransformation
    differs: set[str]


# One row a method.

RATE = 0.1
TOP, BLOCK = all_gather(top_k(0.2)), all_reduce(random_block(0.2))
EXACT, ONE_PEER = exact(), topologies.one_peer_exponential(8)
RING = topologies.ring(8)
RESET = all_reduce(random_block(0.4), seed=1)
SIGNS = all_gather(scaled_sign(), per_leaf=True)


def by_name(path: str) -> int:
    """Two fragments, the bias first."""
    return int("kernel" in path)


METHODS = {
    "dmsgd": Method(gmc_jax.dmsgd(RATE, TOP), set()),
    "dmsgd_local": Method(gmc_jax.dmsgd_local(RATE, TOP), {"0.trace"}),
    "ef_sgd": Method(gmc_jax.ef_sgd(RATE, TOP), {"1.residual"}),
    "ef_momentum": Method(gmc_jax.ef_momentum(RATE, BLOCK), {"0.trace", "2.residual"}),
    "gmc": Method(gmc_jax.gmc(RATE, TOP), {"0.inner.residual"}),
    "gmc_plus": Method(gmc_jax.gmc_plus(RATE, BLOCK), {"0.inner.inner.residual"}),
    "gmc_server_momentum": Method(
        gmc_jax.gmc_server_momentum(RATE, TOP), {"0.residual"}
    ),
    "gmc_rate_inside": Method(
        gmc_jax.gmc_rate_inside(RATE, BLOCK), {"1.inner.residual"}
    ),
    "dgc": Method(gmc_jax.dgc(RATE, TOP), {"0.momentum", "0.feedback.residual"}),
    "def_sgd": Method(gmc_jax.def_sgd(RATE, BLOCK), {"0.trace", "2.inner.residual"}),
    "def_a": Method(
        gmc_jax.def_a(RATE, BLOCK),
        {"inner.0.trace", "inner.2.inner.residual"},
    ),
    "detached_optimizer": Method(
        gmc_jax.detached_optimizer(optax.sgd(RATE, 0.9), BLOCK),
        {"0.0.trace", "1.inner.residual"},
    ),
    "saef": Method(
        gmc_jax.saef(RATE, TOP, period=2),
        {"0.trace", "2.inner.inner.residual"},
    ),
    "cser": Method(
        gmc_jax.cser(RATE, BLOCK, RESET, period=2),
        {"params", "0.trace", "2.error"},
    ),
    "local_sgd": Method(
        gmc_jax.local_sgd(RATE, BLOCK, period=2, momentum=0.9),
        {"params", "inner.0.trace"},
    ),
    "qsparse_local_sgd": Method(
        gmc_jax.qsparse_local_sgd(RATE, TOP, period=2, momentum=0.9),
        {"params", "inner.0.trace", "outer.0.residual"},
    ),
    "post_local_sgd": Method(
        gmc_jax.post_local_sgd(RATE, EXACT, local_from_step=2, period=3),
        {"params"},
    ),
    "double_averaging": Method(
        gmc_jax.double_averaging(RATE, EXACT, EXACT, period=2),
        {"params", "inner.0.trace"},
    ),
    "slowmo": Method(
        gmc_jax.slowmo(optax.sgd(RATE), EXACT, period=2, learning_rate=RATE),
        {"params"},
    ),
    "bmuf": Method(gmc_jax.bmuf(optax.sgd(RATE), TOP, period=2), {"params"}),
    "lookahead": Method(
        gmc_jax.lookahead(optax.sgd(RATE), gmc_jax.no_communication(), period=2),
        {"params", "anchor"},
    ),
    "diloco": Method(
        gmc_jax.diloco(optax.adamw(RATE), EXACT, period=2),
        {"params", "inner.0.mu", "inner.0.nu"},
    ),
    "muloco": Method(
        gmc_jax.muloco(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "inner.0.trace"},
    ),
    "easgd": Method(
        gmc_jax.easgd(optax.sgd(RATE, 0.9), TOP, period=2), {"params", "0.0.trace"}
    ),
    "cocod_sgd": Method(
        gmc_jax.cocod_sgd(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "0.0.trace", "1.sent"},
    ),
    "overlap_local_sgd": Method(
        gmc_jax.overlap_local_sgd(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "0.0.trace", "1.sent"},
    ),
    "streaming_diloco": Method(
        gmc_jax.streaming_diloco(
            optax.adamw(RATE), EXACT, period=2, fragments=by_name, delay=1
        ),
        {"params", "sent", "inner.0.mu", "inner.0.nu"},
    ),
    "d_psgd": Method(
        gmc_jax.d_psgd(RATE, ONE_PEER, momentum=0.9), {"params", "0.0.trace"}
    ),
    "choco_sgd": Method(
        gmc_jax.choco_sgd(RATE, gmc_jax.gossip_differences(RING, top_k(0.2), 0.4)),
        {"params", "1.estimate", "1.disagreement"},
    ),
    "dcd_psgd": Method(
        gmc_jax.dcd_psgd(RATE, gmc_jax.compressed_gossip(RING, random_block(0.5))),
        {"params", "1.disagreement"},
    ),
    "matcha": Method(
        gmc_jax.matcha(RATE, topologies.matcha(RING.edges, 0.5)), {"params"}
    ),
    "d2": Method(
        gmc_jax.d2(RATE, topologies.lazy(topologies.ring(8))),
        {"params", "1.correction"},
    ),
    "qg_dsgdm": Method(gmc_jax.qg_dsgdm(RATE, ONE_PEER), {"params", "momentum"}),
    "gradient_tracking": Method(
        gmc_jax.gradient_tracking(RATE, RING),
        {"params", "0.tracker", "0.last"},
    ),
    "sgp": Method(
        gmc_jax.sgp(RATE, ONE_PEER, delay=1),
        {"params", "1.weight", "1.channel.in_flight.0.0", "1.channel.in_flight.0.1"},
    ),
    "sign_sgd": Method(gmc_jax.sign_sgd(RATE, gmc_jax.majority_vote()), set()),
    "signum": Method(gmc_jax.signum(RATE, gmc_jax.majority_vote()), {"0.ema"}),
    "ef_sign_sgd": Method(gmc_jax.ef_sign_sgd(RATE), {"1.residual"}),
    "dist_ef_sgdm": Method(
        gmc_jax.dist_ef_sgdm(
            RATE, SIGNS, simulated_server(scaled_sign(), per_leaf=True)
        ),
        {"0.trace", "2.residual"},
    ),
    # The next factor depends on the last bits of this one: less so with these values.
    "power_sgd": Method(
        gmc_jax.power_sgd(RATE, gmc_jax.low_rank(1, seed=2), momentum=0.5),
        {"0.residual"},
    ),
    "ef21": Method(gmc_jax.ef21(RATE, TOP), {"0.ema", "1.sent"}),
    "distributed_lion": Method(
        gmc_jax.distributed_lion(RATE, gmc_jax.majority_vote()), {"0.mu"}
    ),
    "one_bit_adam": Method(
        gmc_jax.one_bit_adam(
            RATE,
            SIGNS,
            freeze_step=2,
            server_channel=simulated_server(scaled_sign(), per_leaf=True),
        ),
        {"0.inner.0.residual"},
    ),
    "double_squeeze": Method(
        gmc_jax.double_squeeze(RATE, TOP, simulated_server(top_k(0.4))), {"0.residual"}
    ),
    "demo": Method(gmc_jax.demo(RATE, chunk=4, kept=2), {"1.residual"}),
    "quantised_sgd": Method(gmc_jax.quantised_sgd(RATE), set()),
    "ternary_sgd": Method(gmc_jax.ternary_sgd(RATE), set()),
    "sparse_loco": Method(
        gmc_jax.sparse_loco(
            optax.sgd(RATE, 0.9), gmc_jax.mean_of_senders(top_k(0.2)), period=2
        ),
        {"params", "inner.0.trace", "outer.0.residual"},
    ),
}

# Of any number of workers.


COUNTED_BLOCK = count_entries(all_gather(random_block(0.2)))  # It compiles fast.


def uneven(workers: int) -> gmc_jax.Topology:
    """Weights between workers all differ, and columns sum to 1."""
    matrix = np.random.default_rng(workers).uniform(0.1, 1, size=(workers, workers))
    return gmc_jax.Topology((matrix / matrix.sum(axis=0),))


def pushed(workers: int):
    channel = gossip(uneven(workers))
    return optax.chain(optax.sgd(0.1, momentum=0.5), gmc_jax.push_sum(channel))


def star(workers: int) -> gmc_jax.Topology:
    """A hub and its neighbours; doubly stochastic for one or two workers."""
    hub = np.zeros((workers, workers))
    hub[0, 1:] = hub[1:, 0] = 1
    return topologies.pushing(hub)


def lazy(workers: int) -> gmc_jax.Topology:
    return topologies.lazy(topologies.ring(workers))


# From the number of workers to the method.
COMPOSITIONS: dict[str, Callable[[int], optax.GradientTransformation]] = {
    **{
        name: lambda _, method=method: method.ours(0.02, COUNTED_BLOCK)
        for name, method in PAPERS.items()
    },
    "count_entries": lambda _: gmc_jax.gmc(0.1, count_entries(TOP)),
    "late messages": lambda _: gmc_jax.gmc(
        0.02, all_gather(top_k(0.2), per_leaf=True, delay=1), momentum=0.5
    ),
    "d_psgd": lambda k: gmc_jax.d_psgd(0.1, lazy(k), momentum=0.5),
    "sgp": pushed,
    "osgp": lambda k: gmc_jax.sgp(0.1, lazy(k), momentum=0.5, delay=2),
    "uneven osgp": lambda k: gmc_jax.sgp(0.1, uneven(k), delay=1),
    "sgp over a star": lambda k: gmc_jax.sgp(0.1, star(k)),
    "d2": lambda k: gmc_jax.d2(0.1, lazy(k), momentum=0.5),
    "choco_sgd": lambda k: gmc_jax.choco_sgd(
        0.1, gmc_jax.gossip_differences(lazy(k), random_block(0.2), 0.5), momentum=0.5
    ),
    "dcd_psgd": lambda k: gmc_jax.dcd_psgd(
        0.1, gmc_jax.compressed_gossip(lazy(k), random_block(0.2)), momentum=0.5
    ),
    "matcha": lambda k: gmc_jax.matcha(
        0.1, topologies.matcha(topologies.ring(k).edges, 0.5), momentum=0.5
    ),
    "qg_dsgdm": lambda k: gmc_jax.qg_dsgdm(0.1, lazy(k)),
    "gradient_tracking": lambda k: gmc_jax.gradient_tracking(0.1, lazy(k)),
    "slowmo over sgp": lambda k: gmc_jax.slowmo(pushed(k), exact(), period=4),
    "slowmo over cser": lambda k: gmc_jax.slowmo(
        gmc_jax.cser(0.1, COUNTED_BLOCK, exact(), period=3), exact(), period=4
    ),
    "slowmo over local_sgd": lambda k: gmc_jax.slowmo(
        gmc_jax.local_sgd(0.1, exact(), period=2), exact(), period=4
    ),
    "slowmo without communication": lambda k: gmc_jax.slowmo(
        optax.sgd(0.1), gmc_jax.no_communication(), period=4
    ),
    "slowmo without communication over cser": lambda k: gmc_jax.slowmo(
        gmc_jax.cser(0.1, COUNTED_BLOCK, exact(), period=3),
        gmc_jax.no_communication(),
        period=4,
    ),
    "local adam": lambda k: gmc_jax.diloco(optax.adam(0.1), exact(), period=4),
    "eager streaming": lambda k: gmc_jax.streaming_diloco(
        optax.sgd(0.1), COUNTED_BLOCK, period=4, fragments=1, merge=gmc_jax.eager()
    ),
    "streaming of two fragments": lambda k: gmc_jax.streaming(
        optax.sgd(0.1, momentum=0.5),
        gmc_jax.error_feedback(COUNTED_BLOCK),
        optax.scale(-1),
        period=4,
        fragments=by_name,
        delay=3,
        merge=gmc_jax.corrected(),
    ),
    "sign_sgd": lambda k: gmc_jax.sign_sgd(0.1, gmc_jax.majority_vote()),
    "signum": lambda k: gmc_jax.signum(0.1, gmc_jax.majority_vote()),
    "ef_sign_sgd": lambda k: gmc_jax.ef_sign_sgd(0.1),
    "power_sgd of matrices": lambda k: gmc_jax.power_sgd(0.1, gmc_jax.low_rank(1)),
    "matrices between syncs": lambda k: gmc_jax.periodic(
        optax.sgd(0.1),
        gmc_jax.power_sgd(0.5, gmc_jax.alternating_low_rank(1)),
        period=2,
    ),
    "demo": lambda k: gmc_jax.demo(0.1, decay=0.9, chunk=4, kept=2),
    "quantised_sgd": lambda k: gmc_jax.quantised_sgd(0.1),
    "ternary_sgd": lambda k: gmc_jax.ternary_sgd(0.1),
    "two phases": lambda k: gmc_jax.gmc(0.1, gmc_jax.two_phase(scaled_sign())),
    "majority vote with residuals": lambda k: optax.chain(
        optax.scale(-0.1), gmc_jax.error_feedback(gmc_jax.majority_vote())
    ),
    "joined": lambda k: gmc_jax.gmc(
        0.1, gmc_jax.join_channels([exact(), COUNTED_BLOCK], [3])
    ),
    "accumulated": lambda k: gmc_jax.accumulate(gmc_jax.gmc(0.1, COUNTED_BLOCK), 2),
    "guarded": lambda k: gmc_jax.skip_nonfinite(gmc_jax.gmc(0.1, COUNTED_BLOCK)),
    "injected": lambda k: optax.inject_hyperparams(
        lambda learning_rate: gmc_jax.gmc(learning_rate, COUNTED_BLOCK)
    )(learning_rate=0.1),
    "partitioned": lambda k: optax.partition(
        {"sent": pushed(k), "whole": gmc_jax.dmsgd(0.1, exact())},
        {"bias": "whole", "kernel": "sent"},
    ),
}
